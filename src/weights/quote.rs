//! Names out of files, made fit for error messages.

/// Longest stretch of a file's own text that an error message repeats, characters.
const LONGEST: usize = 120;

/// `text` with control characters escaped, cut to a readable length.
pub(super) fn shorten(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LONGEST) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_names_stay_readable() {
        assert_eq!(shorten("a.weight"), "a.weight");
        assert_eq!(shorten("a\n\u{1b}"), "a\\n\\u{1b}");
        assert_eq!(shorten(&"é".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
