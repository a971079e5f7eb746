//! A progress bar on a terminal, nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use sam3::{Progress, Session, Stage};

/// Steps of the bar; stages report fractions.
const STEPS: u64 = 1000;

/// Shows the stages of `session`'s calls on standard error if that is a terminal.
pub fn show(session: &mut Session) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(STEPS);
    let style = ProgressStyle::with_template("{msg:22} [{wide_bar}] {percent:>3} %  {elapsed}");
    bar.set_style(style.expect("the template is valid").progress_chars("=> "));
    let handle = bar.clone();
    session.on_progress(move |Progress { stage, fraction }| {
        handle.set_message(words(stage));
        handle.set_position((fraction * STEPS as f32) as u64);
        true
    });
    bar
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::EncodeImage => "looking at the picture",
        Stage::EncodeText => "reading the phrase",
        Stage::Ground => "finding instances",
        Stage::Masks => "drawing masks",
        Stage::Segment => "segmenting the object",
        _ => "working",
    }
}
