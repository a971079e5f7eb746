#!/usr/bin/env bash
# Makes a release archive of the C library, and of the command line, that can be unpacked anywhere:
#
#   sam3-VERSION-TARGET/
#     include/            sam3.h, sam3.hpp
#     lib/                libsam3.so.0.1.0 with its links, libsam3.a
#     lib/pkgconfig/      sam3.pc
#     lib/cmake/sam3/     find_package(sam3): sam3::sam3, sam3::static
#     bin/                sam3
#     share/sam3/         examples
#     share/doc/sam3/     licence, changelog, readme
#
# It needs cargo, a C compiler and binutils, on Linux. `cargo cinstall --no-default-features` (cargo-c) makes the same of
# the library, with libsam3.a as Rust leaves it; here its only global symbols are those of the header.
#
#   tools/package.sh [--profile NAME]    cargo's profile: release
#                    [--features LIST]   of the library besides capi: the crate's own defaults without cli, serve and avif;
#                                        "" for none; avif is refused, see below
#                    [--program PATH]    puts this program into bin/ instead of building it; "" for none
#                    [--out DIR]         where the folder and the archive go: target/package
set -euo pipefail
cd "$(dirname "$0")/.."

# The features that are on by default and concern the library.
features="$(awk '/^default = \[/ { on = 1 } on { print } on && /\]/ { exit }' Cargo.toml | grep -o '"[^"]*"' | tr -d '"' |
    grep -vx -e cli -e serve -e avif | paste -sd ,)"
profile=release out=target/package build_program=1 program=""
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile="$2" ;;
        --features) features="$2" ;;
        --program) build_program="" program="$2" ;;
        --out) out="$2" ;;
        *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2 && exit 2 ;;
    esac
    shift 2
done
fail() { echo "package.sh: $*" >&2 && exit 1; }
[ "$(uname -s)" = Linux ] || fail "expected Linux, found $(uname -s); cargo cinstall knows other systems"
# The AVIF decoder exports symbols of its own, and leaves threads behind for a moment, which does not go together with
# unloading the library.
case ",$features," in *,avif,*) fail "the library is packaged without avif" ;; esac

# A value of Cargo.toml: the first line of this key in this section.
value() { sed -n "/^\[$1\]/,/^\[/s/^$2 = \"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" Cargo.toml | head -n 1; }
version="$(value package version)"
target="$(rustc -vV | sed -n 's/^host: //p')"
# libsam3.so.0.1: as many parts of the version as a program depends on.
soname="libsam3.so.$(echo "$version" | cut -d . -f "1-$(value package.metadata.capi.library version_suffix_components)")"
folder=debug
[ "$profile" = dev ] || folder="$profile"
name="sam3-$version-$target"
root="$out/$name"

# Away from other builds, whose libraries cargo would overwrite, and without debug information, which nobody gets.
build="${CARGO_TARGET_DIR:-target}/package-build"
upper="$(echo "$profile" | tr 'a-z-' 'A-Z_')"
export "CARGO_PROFILE_${upper}_DEBUG=0"
cargo rustc --target-dir "$build" --profile "$profile" --lib --crate-type cdylib,staticlib \
    --no-default-features --features "capi${features:+,$features}" -- -C "link-arg=-Wl,-soname,$soname"
if [ -n "$build_program" ]; then
    cargo build --target-dir "$build-program" --profile "$profile" --bin sam3 --features "cli,avif${features:+,$features}"
    program="$build-program/$folder/sam3"
fi

rm -rf "$root"
mkdir -p "$root"/{include,bin,lib/pkgconfig,lib/cmake/sam3,share/sam3,share/doc/sam3}
cp include/sam3.h include/sam3.hpp "$root/include/"

cp "$build/$folder/libsam3.so" "$root/lib/libsam3.so.$version"
strip --strip-unneeded "$root/lib/libsam3.so.$version"
ln -s "libsam3.so.$version" "$root/lib/$soname"
ln -s "$soname" "$root/lib/libsam3.so"

# One object of all that the header's functions need, in which all other names are local: it stands beside other Rust
# libraries in one program, whatever their standard library. Groups are dissolved, since they are told apart by name alone
# and one of two would be dropped; embedded bitcode of the standard library's objects does not survive being joined; names
# that nothing refers to any more would turn another library's weak references into firm ones.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
objcopy --strip-debug -R .llvmbc -R .llvmcmd "$build/$folder/libsam3.a" "$work/libsam3.a"
roots="$(nm -g --defined-only "$work/libsam3.a" 2>/dev/null | sed -n 's/^[0-9a-f]* T \(sam3_.*\)$/--undefined=\1/p')"
# shellcheck disable=SC2086  # one argument a name
ld -r --gc-sections --force-group-allocation $roots --whole-archive "$work/libsam3.a" -o "$work/sam3.o"
objcopy --strip-unneeded --wildcard --keep-global-symbol='sam3_*' "$work/sam3.o"
ar rcs "$root/lib/libsam3.a" "$work/sam3.o"

# The system's libraries that Rust's standard library wants; sam3 itself wants none.
private="$(echo '' | rustc --crate-type staticlib --print native-static-libs -o "$work/none.a" - 2>&1 |
    sed -n 's/^note: native-static-libs: //p')"
[ -n "$private" ] || fail "rustc did not say which libraries of the system it needs"
sed -e "s|@DESCRIPTION@|$(value package description)|" -e "s|@VERSION@|$version|" -e "s|@PRIVATE@|$private|" \
    tools/package/sam3.pc.in > "$root/lib/pkgconfig/sam3.pc"
cp tools/package/sam3Config.cmake tools/package/sam3ConfigVersion.cmake "$root/lib/cmake/sam3/"

if [ -n "$program" ]; then
    cp "$program" "$root/bin/sam3"
    strip --strip-debug "$root/bin/sam3"
else
    rmdir "$root/bin"
fi
cp -R examples "$root/share/sam3/examples"
rm -rf "$root/share/sam3/examples/node/node_modules"
cp LICENSE CHANGELOG.md README.md "$root/share/doc/sam3/"

# The same bytes from the same tree: names in order, nobody's name, one date.
date="@$(git log -1 --format=%ct 2>/dev/null || echo 0)"
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="$date" -cf - "$name" | gzip -9n > "$root.tar.gz"
echo "$root.tar.gz"
