//! Two reports side by side.
//!
//! A ratio is the new median over the old one: below 1 is faster now. Its band reaches from the lower end of the new
//! median's interval over the upper end of the old one's to the opposite ([`Series::median_interval`]), which is wider
//! than 95 % confidence asks for. A ratio whose band holds 1 is noise. What the band cannot know is drift between the two
//! runs, such as another program that ran during one of them: measure old and new in turns where it matters.
//!
//! Ratios between different machines, models or pictures are no measure of a program. They are still computed, with the
//! differences listed in `differences` and above every table.
//!
//! | member of `comparison` | what |
//! |---|---|
//! | `old` | `unix_time`, `commit` and program `sha256` of the old report |
//! | `differences` | what else than the program differs; empty for a fair comparison |
//! | `rows[]` | `name` (`opening`, `first`, `memory`, a path, `path/stage`, `path/load`), `old`, `new`, `ratio`, `band` (`[low, high]`, null for single values), `verdict` (`faster`, `slower`, `noise`, null for single values) |
//! | `outputs[]` | `path`, `same`: whether both checksums are equal |

use serde::Serialize;

use super::report::{Measured, Report};
use super::stats::Series;

#[derive(Debug, Serialize)]
pub struct Comparison {
    pub old: Old,
    pub differences: Vec<String>,
    pub rows: Vec<Row>,
    pub outputs: Vec<Output>,
}

#[derive(Debug, Serialize)]
pub struct Old {
    pub unix_time: u64,
    pub commit: Option<String>,
    pub sha256: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// Milliseconds; bytes for `memory`.
    pub old: f64,
    pub new: f64,
    pub ratio: f64,
    pub band: Option<[f64; 2]>,
    pub verdict: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub struct Output {
    pub path: String,
    pub same: bool,
}

/// Sets `new` beside `old`.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let single = |name: &str, old: f64, new: f64| Row {
        name: name.to_owned(),
        old,
        new,
        ratio: new / old,
        band: None,
        verdict: None,
    };
    let mut rows = vec![single("opening", old.opening_ms, new.opening_ms)];
    if old.first.path == new.first.path {
        rows.push(single("first", old.first.total_ms, new.first.total_ms));
    }
    let mut outputs = Vec::new();
    for (a, b) in new.paths.iter().filter_map(|b| Some((old.paths.iter().find(|a| a.name == b.name)?, b))) {
        rows.push(row(b.name.clone(), &a.total, &b.total));
        for (name, before, after) in stages(a, b) {
            rows.push(row(format!("{}/{name}", b.name), before, after));
        }
        if let (Some(before), Some(after)) = (&a.load, &b.load)
            && before.sessions == after.sessions
        {
            rows.push(row(format!("{}/load", b.name), &before.latency, &after.latency));
        }
        outputs.push(Output { path: b.name.clone(), same: a.checksum == b.checksum });
    }
    if let (Some(before), Some(after)) = (old.memory.peak, new.memory.peak) {
        rows.push(single("memory", before as f64, after as f64));
    }
    let program = &old.program;
    Comparison {
        old: Old { unix_time: old.unix_time, commit: program.commit.clone(), sha256: program.sha256.clone() },
        differences: differences(old, new),
        rows,
        outputs,
    }
}

/// Stages that both have.
fn stages<'a>(old: &'a Measured, new: &'a Measured) -> impl Iterator<Item = (&'a str, &'a Series, &'a Series)> {
    new.stages.iter().filter_map(|s| {
        let before = old.stages.iter().find(|o| o.name == s.name)?;
        Some((s.name.as_str(), &before.time, &s.time))
    })
}

fn row(name: String, old: &Series, new: &Series) -> Row {
    let ((a, b), (c, d)) = (old.median_interval(), new.median_interval());
    let band = [c / b, d / a];
    let verdict = match band {
        [low, _] if low > 1.0 => "slower",
        [_, high] if high < 1.0 => "faster",
        _ => "noise",
    };
    Row {
        name,
        old: old.median,
        new: new.median,
        ratio: new.median / old.median,
        band: Some(band),
        verdict: Some(verdict),
    }
}

/// What makes the ratios something else than a measure of the program.
fn differences(old: &Report, new: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{what}: {old} then, {new} now"));
        }
    };
    let show = |o: &Option<String>| o.clone().unwrap_or_else(|| "unknown".to_owned());
    let (a, b) = (&old.machine, &new.machine);
    check("processor", show(&a.cpu), show(&b.cpu));
    check("cores", a.cores.to_string(), b.cores.to_string());
    check("kernels", a.isa.clone(), b.isa.clone());
    check("system", format!("{} {}", a.os, a.arch), format!("{} {}", b.os, b.arch));
    let (a, b) = (&old.model, &new.model);
    check("device", a.device.clone(), b.device.clone());
    let sums = |m: &super::report::Model| {
        m.files.iter().map(|f| f.sha256[..f.sha256.len().min(12)].to_owned()).collect::<Vec<_>>().join(" ")
    };
    check("weights", sums(a), sums(b));
    check("size of the model's picture", a.image_size.to_string(), b.image_size.to_string());
    let (a, b) = (&old.settings, &new.settings);
    check("picture", format!("{} ({}×{})", a.image.name, a.image.width, a.image.height), {
        format!(
            "{} ({}×{})",
            if a.image.sha256 == b.image.sha256 { &a.image.name } else { &b.image.name },
            b.image.width,
            b.image.height
        )
    });
    if a.image.sha256 != b.image.sha256 && a.image.name == b.image.name {
        check("content of the picture", a.image.sha256.clone(), b.image.sha256.clone());
    }
    check("phrase", a.phrase.clone(), b.phrase.clone());
    check("click", format!("{:?}", a.point), format!("{:?}", b.point));
    check("prompts in a call", a.prompts.to_string(), b.prompts.to_string());
    check("threshold", a.threshold.to_string(), b.threshold.to_string());
    check("most masks", format!("{:?}", a.max_masks), format!("{:?}", b.max_masks));
    check("build", old.program.build.clone(), new.program.build.clone());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(around: f64) -> Series {
        Series::new((0..20).map(|i| around * (1.0 + 0.001 * f64::from(i))).collect()).unwrap()
    }

    #[test]
    fn ratios_within_the_band_are_noise() {
        let verdict = |old: f64, new: f64| row(String::new(), &series(old), &series(new)).verdict.unwrap();
        assert_eq!(verdict(10.0, 10.0), "noise");
        assert_eq!(verdict(10.0, 10.02), "noise");
        assert_eq!(verdict(10.0, 10.5), "slower");
        assert_eq!(verdict(10.0, 5.0), "faster");
        let row = row(String::new(), &series(10.0), &series(5.0));
        let [low, high] = row.band.unwrap();
        assert!((row.ratio - 0.5).abs() < 1e-9 && low < 0.5 && high > 0.5 && high - low < 0.02, "{low} {high}");
    }
}
