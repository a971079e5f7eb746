//! Programs of other hosts, built outside cargo from an unpacked release archive: by pkg-config, by CMake, and by nothing
//! at all where the host loads libraries by itself. `tests/hosts/run.sh` makes the archive and says where it is.
//!
//! Without `SAM3_PREFIX` these tests have nothing to look at, and pass. Where a tool is missing they say so and pass;
//! with `SAM3_REQUIRE_HOSTS=1` they fail instead.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sam3::image::Picture;
use sam3::{Model, ModelOptions, Prompt};

use crate::beside::OTHER;
use crate::expected::Tour;
use crate::surface::declared;
use crate::tools::{fixture, has, holds, root, succeed};

/// The fixture's weights are random numbers; this phrase finds something by chance.
const PHRASE: &str = "cat";

fn required() -> bool {
    std::env::var_os("SAM3_REQUIRE_HOSTS").is_some_and(|v| v == "1")
}

/// The unpacked archive, if there is one.
fn prefix() -> Option<PathBuf> {
    let prefix = std::env::var_os("SAM3_PREFIX").map(PathBuf::from);
    assert!(prefix.is_some() || !required(), "SAM3_REQUIRE_HOSTS=1, but no SAM3_PREFIX; see tests/hosts/run.sh");
    if prefix.is_none() {
        println!("skipped: no SAM3_PREFIX, see tests/hosts/run.sh");
    }
    prefix
}

/// Whether this machine has all of it: programs, and modules of pkg-config as `module:NAME`.
fn there(needs: &[&str]) -> bool {
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| match need.strip_prefix("module:") {
            Some(module) => !Command::new("pkg-config").args(["--exists", module]).status().is_ok_and(|s| s.success()),
            // An X server knows no --version.
            None if **need == "Xvfb" => Command::new(need).arg("-help").output().is_err(),
            None => !has(need),
        })
        .collect();
    assert!(missing.is_empty() || !required(), "SAM3_REQUIRE_HOSTS=1, but there is no {missing:?}");
    if !missing.is_empty() {
        println!("skipped: no {missing:?} on this machine");
    }
    missing.is_empty()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `pkg-config` says of modules, sam3 being the archive's.
fn pkg_config(prefix: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(args);
    text(&succeed(&mut command).stdout).split_whitespace().map(str::to_string).collect()
}

/// Links with the static library: its own file instead of whichever the linker prefers, and the libraries behind it.
fn statically(prefix: &Path) -> Vec<String> {
    let flags = pkg_config(prefix, &["--cflags", "--libs", "--static", "sam3"]);
    flags.into_iter().map(|f| if f == "-lsam3" { "-l:libsam3.a".to_string() } else { f }).collect()
}

/// Runs a program with the archive's shared library.
fn with_library(program: impl AsRef<OsStr>, prefix: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", prefix.join("lib"));
    command
}

/// Whether the archive's library has the demo model in it.
fn demo_inside(prefix: &Path) -> bool {
    let inside = holds(&std::fs::read(prefix.join("lib/libsam3.so")).unwrap(), b"; demo-model: yes");
    assert!(inside || !required(), "SAM3_REQUIRE_HOSTS=1, but the library has no demo model");
    if !inside {
        println!("skipped: no demo model in the library");
    }
    inside
}

/// What every host has to find: lines as `examples/c/segment.c` prints them, and masks as files.
struct Expected {
    /// What the host is asked: CHECKPOINT PICTURE PHRASE.
    asked: [PathBuf; 3],
    lines: String,
    /// PGM, in the order of the instances.
    masks: Vec<Vec<u8>>,
}

impl Expected {
    fn new() -> Self {
        let model = Model::open(fixture(), &ModelOptions::default()).unwrap();
        Self::of(&model, [fixture(), fixture().join("input.png"), PHRASE.into()])
    }

    /// With the model that is in the library, where it is.
    #[cfg(feature = "demo-model")]
    fn demo(prefix: &Path) -> Option<Self> {
        let model = || Model::demo(&ModelOptions::default()).unwrap();
        let asked = ["demo".into(), root().join("assets/demo/shapes.png"), "blue shape".into()];
        demo_inside(prefix).then(|| Self::of(&model(), asked))
    }

    #[cfg(not(feature = "demo-model"))]
    fn demo(_: &Path) -> Option<Self> {
        None
    }

    fn of(model: &Model, asked: [PathBuf; 3]) -> Self {
        let picture = Picture::open(&asked[1]).unwrap();
        let phrase = Prompt::text(asked[2].to_str().unwrap());
        let found = model.session().run(&picture.view(), &[phrase], &Default::default()).unwrap();
        let (w, h) = (found.width, found.height);
        let line = |(i, f): (usize, &sam3::instance::Instance)| {
            let ([x0, y0, x1, y1], area) = (f.bbox, f.area());
            format!("{i:3}: score {:.3}, {area} pixels of {w}x{h}, box {x0:.1} {y0:.1} {x1:.1} {y1:.1}\n", f.score)
        };
        let pgm = |mask: &sam3::instance::Mask| [format!("P5 {w} {h} 255\n").into_bytes(), mask.to_u8()].concat();
        assert!(found.instances.iter().any(|f| f.area() > 0), "a phrase that finds nothing shows nothing");
        Self {
            asked,
            lines: found.instances.iter().enumerate().map(line).collect(),
            masks: found.instances.iter().map(|f| pgm(&f.mask)).collect(),
        }
    }

    /// Compares `NAME-0.pgm` and so on in `folder`.
    fn check_masks(&self, folder: &Path, name: &str) {
        for (i, expected) in self.masks.iter().enumerate() {
            let path = folder.join(format!("{name}-{i}.pgm"));
            let found = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let first = found.iter().zip(expected).position(|(f, e)| f != e);
            assert!(found == *expected, "{}: differs at byte {first:?} of {}", path.display(), expected.len());
        }
        assert!(!folder.join(format!("{name}-{}.pgm", self.masks.len())).exists(), "{name}: more masks than expected");
    }

    /// Runs a host that takes CHECKPOINT PICTURE PHRASE FOLDER, and compares what it prints and writes.
    fn check(&self, mut command: Command) {
        let folder = tempfile::tempdir().unwrap();
        let output = succeed(command.args(&self.asked).arg(folder.path()));
        assert_eq!(text(&output.stdout), self.lines, "{command:?}");
        self.check_masks(folder.path(), "mask");
    }

    /// The host's own account of a failure: the library's words.
    fn check_failure(mut command: Command) {
        let output = command.args(["/nowhere", "x", "y"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.starts_with("IO: /nowhere"), "{command:?}: {said}");
    }
}

/// Runs a built `tour.c`.
pub fn check_c(mut command: Command, tour: &mut Tour) {
    let out = tempfile::tempdir().unwrap();
    std::fs::write(out.path().join("rgb.bin"), tour.picture.pixels()).unwrap();
    succeed(command.arg(fixture()).arg(out.path()));
    assert!(std::fs::read(out.path().join("tour.bin")).unwrap() == tour.bytes(), "{command:?}");
}

/// Runs a built `tour.cpp`.
pub fn check_cpp(mut command: Command, tour: &mut Tour) {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("out.bin");
    succeed(command.arg(fixture()).arg(&file));
    assert!(std::fs::read(file).unwrap() == tour.wrapped(), "{command:?}");
}

pub fn symbols(command: &mut Command) -> BTreeSet<String> {
    let output = text(&succeed(command).stdout);
    output.lines().filter_map(|l| l.split(' ').nth(2)).map(str::to_string).collect()
}

#[test]
fn the_archive_holds_what_it_says_and_exports_nothing_else() {
    let Some(prefix) = prefix() else { return };
    let version = env!("CARGO_PKG_VERSION");
    let library = prefix.join(format!("lib/libsam3.so.{version}"));
    for file in ["include/sam3.h", "include/sam3.hpp", "lib/libsam3.a", "bin/sam3", "share/sam3/examples/c/segment.c"] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    let soname = format!("libsam3.so.{}", version.rsplit_once('.').unwrap().0);
    for link in ["libsam3.so", &soname] {
        assert_eq!(prefix.join("lib").join(link).canonicalize().unwrap(), library.canonicalize().unwrap(), "{link}");
    }
    for file in ["include/sam3.h", "include/sam3.hpp"] {
        assert!(std::fs::read(prefix.join(file)).unwrap() == std::fs::read(root().join(file)).unwrap(), "{file}");
    }
    if there(&["readelf", "nm"]) {
        let dynamic = text(&succeed(Command::new("readelf").arg("-dW").arg(&library)).stdout);
        let values = |tag: &str| -> Vec<String> {
            let lines = dynamic.lines().filter(|l| l.contains(tag));
            lines.filter_map(|l| Some(l.split_once('[')?.1.split_once(']')?.0.to_string())).collect()
        };
        assert_eq!(values("(SONAME)"), [soname]);
        let system = ["libc.", "libm.", "libgcc_s.", "libdl.", "libpthread.", "librt.", "libutil.", "ld-linux"];
        let more: Vec<_> =
            values("(NEEDED)").into_iter().filter(|n| !system.iter().any(|s| n.starts_with(s))).collect();
        assert!(more.is_empty(), "needs {more:?}");

        let declared = declared(&std::fs::read_to_string(root().join("include/sam3.h")).unwrap());
        let shared = symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
        assert!(shared == declared, "{:?}", shared.symmetric_difference(&declared).collect::<Vec<_>>());
        let kept = symbols(Command::new("nm").args(["-g", "--defined-only"]).arg(prefix.join("lib/libsam3.a")));
        assert!(kept == declared, "{:?}", kept.symmetric_difference(&declared).collect::<Vec<_>>());
    }
    let help = text(&succeed(Command::new(prefix.join("bin/sam3")).arg("--version")).stdout);
    assert_eq!(help.trim(), format!("sam3 {version}"));
}

#[test]
fn tours_by_pkg_config() {
    let Some(prefix) = prefix().filter(|_| there(&["pkg-config", "gcc", "g++"])) else { return };
    assert_eq!(pkg_config(&prefix, &["--modversion", "sam3"]), [env!("CARGO_PKG_VERSION")]);
    let dir = tempfile::tempdir().unwrap();
    let mut tour = Tour::new(&fixture());
    let shared = pkg_config(&prefix, &["--cflags", "--libs", "sam3"]);
    for (kind, flags) in [("shared", shared), ("static", statically(&prefix))] {
        let at = |name: &str| dir.path().join(format!("{name}-{kind}"));
        for (compiler, std, source, name) in
            [("gcc", "-std=c99", "tests/c/tour.c", "c"), ("g++", "-std=c++17", "tests/c/tour.cpp", "cpp")]
        {
            let mut command = Command::new(compiler);
            command.args([std, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(root().join(source)).args(&flags);
            succeed(command.args(["-lm", "-o"]).arg(at(name)));
        }
        // The static programs find no library, and need none.
        let run = |name: &str| match kind {
            "shared" => with_library(at(name), &prefix),
            _ => Command::new(at(name)),
        };
        check_c(run("c"), &mut tour);
        check_cpp(run("cpp"), &mut tour);
    }
}

/// What the other tests show of the library that cargo left, of the one that is released: without AVIF, stripped, and as a
/// static library with local names.
#[test]
fn misuse_and_unloading_by_pkg_config() {
    let Some(prefix) = prefix().filter(|_| there(&["pkg-config", "gcc"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let build = |source: &str, name: &str, flags: &[String]| {
        let exe = dir.path().join(name);
        let mut command = Command::new("gcc");
        command.args(["-std=c11", "-pthread", "-Wall", "-Werror"]).arg(root().join(source)).args(flags);
        succeed(command.args(["-lm", "-ldl", "-o"]).arg(&exe));
        exe
    };
    let shared = pkg_config(&prefix, &["--cflags", "--libs", "sam3"]);
    for source in ["misuse", "threads"] {
        let path = format!("tests/c/{source}.c");
        let output = succeed(with_library(build(&path, source, &shared), &prefix).arg(fixture()));
        assert_eq!(text(&output.stderr), "", "the library prints nothing");
        let exe = build(&path, &format!("{source}-static"), &statically(&prefix));
        succeed(Command::new(exe).arg(fixture()));
    }
    let headers = pkg_config(&prefix, &["--cflags", "sam3"]);
    let exe = build("tests/c/reload.c", "reload", &headers);
    let output = succeed(Command::new(exe).arg(prefix.join("lib/libsam3.so")).arg(fixture()).arg("200"));
    print!("{}", text(&output.stdout));
}

/// Configures and builds a folder with CMake.
pub fn cmake(prefix: &Path, source: &Path, build: &Path, more: &[&str]) {
    let mut command = Command::new("cmake");
    command.arg("-S").arg(source).arg("-B").arg(build).args(more);
    succeed(command.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())).arg("-DCMAKE_BUILD_TYPE=RelWithDebInfo"));
    succeed(Command::new("cmake").arg("--build").arg(build));
}

#[test]
fn tours_by_cmake() {
    let Some(prefix) = prefix().filter(|_| there(&["cmake", "gcc", "g++"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    cmake(&prefix, &root().join("tests/hosts"), dir.path(), &[]);
    assert_eq!(std::fs::read_to_string(dir.path().join("version.txt")).unwrap(), env!("CARGO_PKG_VERSION"));
    let mut tour = Tour::new(&fixture());
    // CMake tells its programs where the shared library is.
    for kind in ["sam3", "static"] {
        check_c(Command::new(dir.path().join(format!("tour_c_{kind}"))), &mut tour);
        check_cpp(Command::new(dir.path().join(format!("tour_cpp_{kind}"))), &mut tour);
    }
}

/// Where `cargo cinstall` and Debian put things: libraries in a folder of the processor's, CMake's files below share/.
#[test]
fn cmake_finds_the_library_in_a_system() {
    let Some(prefix) = prefix().filter(|_| there(&["cmake", "gcc", "g++"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let system = dir.path().join("usr");
    let libraries = system.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    std::fs::create_dir_all(&libraries).unwrap();
    std::fs::create_dir_all(system.join("share")).unwrap();
    let copy = |from: &str, to: PathBuf| succeed(Command::new("cp").arg("-a").arg(prefix.join(from)).arg(to));
    copy("include", system.join("include"));
    copy("lib/.", libraries.clone());
    std::fs::rename(libraries.join("cmake"), system.join("share/cmake")).unwrap();
    let build = dir.path().join("build");
    cmake(&system, &root().join("tests/hosts"), &build, &[]);
    check_c(Command::new(build.join("tour_c_sam3")), &mut Tour::new(&fixture()));

    // Without the header it is not found, and CMake is told why.
    std::fs::remove_file(system.join("include/sam3.h")).unwrap();
    let mut command = Command::new("cmake");
    command.arg("-S").arg(root().join("tests/hosts")).arg("-B").arg(dir.path().join("none"));
    let output = command.arg(format!("-DCMAKE_PREFIX_PATH={}", system.display())).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn examples_of_the_archive_find_the_same() {
    let Some(prefix) = prefix().filter(|_| there(&["cmake", "gcc", "g++"])) else { return };
    let expected = [Some(Expected::new()), Expected::demo(&prefix)];
    let examples = prefix.join("share/sam3/examples");
    for more in [&[][..], &["-DSAM3_EXAMPLES_STATIC=ON"]] {
        let dir = tempfile::tempdir().unwrap();
        cmake(&prefix, &examples, dir.path(), more);
        for expected in expected.iter().flatten() {
            expected.check(Command::new(dir.path().join("segment_cpp")));
            let output = succeed(Command::new(dir.path().join("segment_c")).args(&expected.asked));
            assert_eq!(text(&output.stdout), expected.lines);
        }
        Expected::check_failure(Command::new(dir.path().join("segment_cpp")));
        succeed(Command::new(dir.path().join("frames")).arg(fixture()));
    }
}

/// The command line in the archive is one more host.
#[test]
fn the_program_of_the_archive_finds_the_same() {
    let Some(prefix) = prefix() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(prefix.join("bin/sam3"));
    command.arg("segment").arg(fixture().join("input.png")).arg("--model").arg(fixture()).args(["--text", PHRASE]);
    succeed(command.arg("--masks").arg(folder.path()));
    let picture = |path: PathBuf| Picture::open(path).unwrap().pixels().iter().step_by(3).copied().collect::<Vec<u8>>();
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let expected = Expected::new();
    assert_eq!(names.len(), expected.masks.len(), "{names:?}");
    for (path, mask) in names.into_iter().zip(&expected.masks) {
        assert!(mask.ends_with(&picture(path.clone())), "{}", path.display());
    }
}

#[test]
fn python_finds_the_same() {
    let Some(prefix) = prefix().filter(|_| there(&["python3"])) else { return };
    let command = || {
        let mut command = Command::new("python3");
        command.env("SAM3_LIBRARY", prefix.join("lib/libsam3.so"));
        command.arg(prefix.join("share/sam3/examples/python/segment.py"));
        command
    };
    [Some(Expected::new()), Expected::demo(&prefix)].iter().flatten().for_each(|e| e.check(command()));
    Expected::check_failure(command());
}

#[test]
fn node_finds_the_same() {
    let Some(prefix) = prefix().filter(|_| there(&["node"])) else { return };
    let modules = std::env::var_os("SAM3_NODE_MODULES").map(PathBuf::from);
    let Some(modules) = modules.filter(|m| m.join("node_modules/koffi").is_dir()) else {
        assert!(!required(), "SAM3_REQUIRE_HOSTS=1, but there is no koffi in SAM3_NODE_MODULES");
        return println!("skipped: no koffi in SAM3_NODE_MODULES");
    };
    // Modules are looked for beside the file that imports them.
    let program = modules.join("segment.mjs");
    std::fs::copy(prefix.join("share/sam3/examples/node/segment.mjs"), &program).unwrap();
    let command = || {
        let mut command = Command::new("node");
        command.env("SAM3_LIBRARY", prefix.join("lib/libsam3.so")).arg(&program);
        command
    };
    [Some(Expected::new()), Expected::demo(&prefix)].iter().flatten().for_each(|e| e.check(command()));
    Expected::check_failure(command());
}

#[test]
fn opencv_finds_the_same_with_gaps_and_in_a_part() {
    let Some(prefix) = prefix().filter(|_| there(&["pkg-config", "g++", "module:opencv4"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let examples = prefix.join("share/sam3/examples/opencv");
    // Debian's module names every library of OpenCV; three of them are needed.
    let mut flags = pkg_config(&prefix, &["--cflags", "--libs-only-L", "sam3", "opencv4"]);
    flags.extend(["-lsam3", "-lopencv_core", "-lopencv_imgproc", "-lopencv_imgcodecs"].map(String::from));
    for source in [root().join("tests/hosts/mat.cpp"), examples.join("overlay.cpp")] {
        let exe = dir.path().join(source.file_stem().unwrap());
        let mut command = Command::new("g++");
        // OpenCV's own headers warn.
        command.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-enum-enum-conversion"]);
        succeed(command.arg("-I").arg(&examples).arg(&source).args(&flags).arg("-o").arg(exe));
    }
    let (expected, picture) = (Expected::new(), fixture().join("input.png"));
    let mut command = with_library(dir.path().join("mat"), &prefix);
    succeed(command.arg(fixture()).arg(&picture).arg(PHRASE).arg(dir.path()));
    for name in ["plain", "padded", "part"] {
        expected.check_masks(dir.path(), name);
    }

    // The overlay: what no mask covers stays, what one covers changes.
    let overlay = dir.path().join("overlay.png");
    let mut command = with_library(dir.path().join("overlay"), &prefix);
    let output = succeed(command.arg(fixture()).arg(&picture).arg(PHRASE).arg(&overlay));
    assert_eq!(text(&output.stdout), format!("{} instances\n", expected.masks.len()));
    let (before, after) = (Picture::open(&picture).unwrap(), Picture::open(&overlay).unwrap());
    assert_eq!((before.width(), before.height()), (after.width(), after.height()));
    let pixels = before.width() * before.height();
    let covered = |i: usize| expected.masks.iter().any(|m| m[m.len() - pixels + i] == 255);
    let (mut inside, mut changed) = (0, 0);
    for (i, (b, a)) in before.pixels().chunks(3).zip(after.pixels().chunks(3)).enumerate() {
        if covered(i) {
            inside += 1;
            changed += usize::from(a != b);
        } else {
            assert_eq!(a, b, "pixel {i} is in no mask");
        }
    }
    assert!(0 < inside && inside < pixels && changed * 10 > inside * 9, "{changed} of {inside} pixels changed");
}

/// An X server without a screen, ended when dropped.
struct Xvfb {
    server: Child,
    display: String,
}

impl Xvfb {
    fn start() -> Self {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]);
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut number = String::new();
        // It says which number it took once it takes connections.
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        assert!(number.trim().parse::<u32>().is_ok(), "Xvfb said {number:?}");
        Self { server, display: format!(":{}", number.trim()) }
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// Frames that spend over 4 ms on segmentation. None may without an excuse: the thread was neither preempted nor did it
/// wait for anything but the library. On a loaded machine the system runs other programs in the middle of a frame; those
/// frames are counted apart, and are at most a tenth.
///
/// The model is the one in the library, which finds the game's disc; without it, the fixture, which finds something.
#[test]
fn a_game_loop_is_never_held_up() {
    let Some(prefix) = prefix().filter(|_| there(&["pkg-config", "gcc", "Xvfb", "module:sdl2"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let game = dir.path().join("game");
    let mut command = Command::new("gcc");
    command.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2"]);
    command.arg(prefix.join("share/sam3/examples/sdl/game.c"));
    succeed(command.args(pkg_config(&prefix, &["--cflags", "--libs", "sam3", "sdl2"])).arg("-o").arg(&game));
    let screen = Xvfb::start();
    let (demo, shot) = (demo_inside(&prefix), dir.path().join("shot.bmp"));
    let mut command = with_library(game, &prefix);
    command.env("DISPLAY", &screen.display).env("SDL_VIDEODRIVER", "x11");
    command.arg(if demo { "demo".into() } else { fixture() }).arg("300").arg(&shot);
    let said = text(&succeed(&mut command).stdout);
    print!("{said}");
    let numbers: Vec<f64> = said
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter_map(|word| word.trim_matches('.').parse().ok())
        .collect();
    let [frames, masks, _mean, _worst, limit, over, excused] = numbers[..] else { panic!("{said}") };
    // A loaded machine may take hundreds of frames for one mask.
    assert!(frames >= 300.0 && masks >= 1.0 && limit == 4.0, "{said}");
    assert_eq!(over, 0.0, "{said}");
    assert!(excused <= frames / 10.0, "{said}");
    if demo {
        // The disc of the last frame, or of one before it, is under a texture of half red; the ground is not.
        let shot = Picture::open(&shot).unwrap();
        let redder = |p: &[u8]| i32::from(p[0]) - i32::from(p[1]) > 60;
        let red = shot.pixels().chunks(3).filter(|p| redder(p)).count() as f64;
        let disc = std::f64::consts::PI * 8000.0;
        assert!((red / disc - 1.0).abs() < 0.2, "{red} pixels of the mask on the screen, {disc:.0} of the disc");
        assert!(redder(&shot.pixels()[3 * (180 * 640 + 320)..][..3]), "the middle is in the disc");
    }
}

/// Two Rust standard libraries, all of both, in one program: no name of one meets the other's.
#[test]
fn the_static_library_stands_beside_all_of_another() {
    let Some(prefix) = prefix().filter(|_| there(&["pkg-config", "gcc", "rustc"])) else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("other.rs"), OTHER).unwrap();
    std::fs::write(at("host.c"), crate::beside::HOST).unwrap();
    let mut command = Command::new("rustc");
    command.args(["--edition=2024", "--crate-type=staticlib", "--crate-name=other", "-O", "-o"]);
    succeed(command.arg(at("libother.a")).arg(at("other.rs")));
    let mut command = Command::new("gcc");
    command.args(["-Wall", "-Werror", "-o"]).arg(at("host")).arg(at("host.c"));
    command.arg("-Wl,--whole-archive").arg(at("libother.a")).arg(prefix.join("lib/libsam3.a"));
    succeed(command.arg("-Wl,--no-whole-archive").args(statically(&prefix)));
    succeed(Command::new(at("host")).arg(fixture()));
}
