//! The report for people, for spreadsheets, and as it is.

use std::fmt::Write;

use serde::Serialize;

use super::arguments::Format;
use super::compare::{Comparison, Row};
use super::report::{Measured, Report};
use super::stats::Series;

/// The text of the whole report.
pub fn render(report: &Report, comparison: Option<&Comparison>, format: Format) -> String {
    match format {
        Format::Json => json(report, comparison),
        Format::Csv => csv(report, comparison),
        Format::Table => page(report, comparison, &Plain),
        Format::Markdown => page(report, comparison, &Markdown),
    }
}

fn json(report: &Report, comparison: Option<&Comparison>) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        report: &'a Report,
        #[serde(skip_serializing_if = "Option::is_none")]
        comparison: Option<&'a Comparison>,
    }
    let text = serde_json::to_string_pretty(&Document { report, comparison });
    text.expect("the report has no failing member") + "\n"
}

/// The series of a report under their names, as `compare` names them.
fn lines(path: &Measured) -> Vec<(String, &Series, Option<f64>)> {
    let mut lines = vec![(path.name.clone(), &path.total, Some(path.per_second))];
    lines.extend(path.stages.iter().map(|s| (format!("{}/{}", path.name, s.name), &s.time, None)));
    lines.extend(path.load.iter().map(|l| (format!("{}/load", path.name), &l.latency, Some(l.per_second))));
    lines
}

/// One row a series, every row with what identifies the run.
fn csv(report: &Report, comparison: Option<&Comparison>) -> String {
    let (program, machine, model) = (&report.program, &report.machine, &report.model);
    let run = [
        report.unix_time.to_string(),
        program.commit.clone().unwrap_or_default(),
        machine.cpu.clone().unwrap_or_default(),
        model.device.clone(),
        model.files.iter().map(|f| f.sha256.as_str()).collect::<Vec<_>>().join(" "),
        model.random.to_string(),
        model.image_size.to_string(),
        report.settings.prompts.to_string(),
    ];
    let run = run.map(|field| quoted(&field)).join(",");
    let mut out = String::from(
        "unix_time,commit,cpu,device,weights_sha256,random,image_size,prompts,name,instances,n,min_ms,mean_ms,median_ms,\
         p90_ms,p95_ms,p99_ms,max_ms,cv,per_second,old_median_ms,ratio,ratio_low,ratio_high\n",
    );
    let mut row = |name: &str, instances: String, series: &Series, per_second: Option<f64>| {
        let s = series;
        let numbers = [s.min, s.mean, s.median, s.p90, s.p95, s.p99, s.max].map(|v| v.to_string()).join(",");
        let optional = |v: Option<f64>| v.map(|v| v.to_string()).unwrap_or_default();
        let old = comparison.and_then(|c| c.rows.iter().find(|r| r.name == name));
        let band = |i: usize| optional(old.and_then(|r| r.band).map(|b| b[i]));
        let compared = [optional(old.map(|r| r.old)), optional(old.map(|r| r.ratio)), band(0), band(1)].join(",");
        let (cv, rate) = (optional(s.cv), optional(per_second));
        let _ = writeln!(out, "{run},{},{instances},{},{numbers},{cv},{rate},{compared}", quoted(name), s.n);
    };
    for (name, value) in [("opening", report.opening_ms), ("first", report.first.total_ms)] {
        if let Some(single) = Series::new(vec![value]) {
            row(name, String::new(), &single, None);
        }
    }
    for path in &report.paths {
        for (name, series, rate) in lines(path) {
            row(&name, path.instances.to_string(), series, rate);
        }
    }
    out
}

/// A field that may hold anything (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// How a page's parts are set.
trait Style {
    /// A fact with its name.
    fn fact(&self, name: &str, value: &str) -> String;
    /// What must not be overlooked.
    fn note(&self, text: &str) -> String;
    /// A table of a head and rows; the first column is text.
    fn table(&self, rows: &[Vec<String>]) -> String;
}

struct Plain;
struct Markdown;

impl Style for Plain {
    fn fact(&self, name: &str, value: &str) -> String {
        format!("{name:<14}{value}\n")
    }

    fn note(&self, text: &str) -> String {
        format!("! {text}\n")
    }

    fn table(&self, rows: &[Vec<String>]) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|f| f.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::from("\n");
        for row in rows {
            let mut line = String::new();
            for (c, field) in row.iter().enumerate() {
                let _ = if c == 0 {
                    write!(line, "{field:<0$}", widths[0])
                } else {
                    write!(line, "  {field:>0$}", widths[c])
                };
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

impl Style for Markdown {
    fn fact(&self, name: &str, value: &str) -> String {
        format!("- {name}: {}\n", value.replace('|', "\\|"))
    }

    fn note(&self, text: &str) -> String {
        format!("- **{text}**\n")
    }

    fn table(&self, rows: &[Vec<String>]) -> String {
        let mut out = String::from("\n");
        for (i, row) in rows.iter().enumerate() {
            let fields: Vec<String> = row.iter().map(|f| markdown(f)).collect();
            let _ = writeln!(out, "| {} |", fields.join(" | "));
            if i == 0 {
                let _ = writeln!(out, "|---{}|", "|--:".repeat(row.len() - 1));
            }
        }
        out
    }
}

/// A field of a Markdown table, which would swallow the blanks that indent a stage.
fn markdown(field: &str) -> String {
    let text = field.trim().replace('|', "\\|");
    if field.starts_with(' ') { format!("· {text}") } else { text }
}

fn page(report: &Report, comparison: Option<&Comparison>, style: &dyn Style) -> String {
    let (program, machine, model, settings) = (&report.program, &report.machine, &report.model, &report.settings);
    let mut out = String::new();
    let commit = program.commit.as_deref().map(|c| format!(", commit {c}")).unwrap_or_default();
    let when = date(report.unix_time);
    out += &style.fact("sam3", &format!("{}, {} build{commit}; measured {when}", program.version, program.build));
    let memory = machine.memory_bytes.map(|b| format!(", {:.1} GB", b as f64 / 1e9)).unwrap_or_default();
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    out += &style.fact("machine", &format!("{cpu}, {} cores{memory}, {} {}", machine.cores, machine.os, machine.arch));
    out += &style.fact("runs on", &model.device);
    let (parameters, types) = (model.parameters as f64 / 1e6, model.precision.join(", "));
    let size = model.image_size;
    out += &style.fact("model", &format!("{}: {parameters:.1} M parameters, {types}, {size}×{size} px", model.path));
    for file in &model.files {
        out += &style.fact("weights", &format!("{} {}", file.sha256, file.name));
    }
    let image = &settings.image;
    out += &style.fact("picture", &format!("{}, {}×{}", image.name, image.width, image.height));
    let [x, y] = settings.point;
    let most = settings.max_masks.map(|n| format!(", at most {n} masks")).unwrap_or_default();
    let (prompts, phrase, threshold) = (settings.prompts, &settings.phrase, settings.threshold);
    out +=
        &style.fact("work", &format!("\"{phrase}\", click {x},{y}; {prompts} in a call; threshold {threshold}{most}"));
    for note in &report.notes {
        out += &style.note(note);
    }
    out += &style.table(&times(report));
    out += "\n";
    for path in &report.paths {
        let (same, sum) = (if path.repeatable { "" } else { " (NOT THE SAME in every run)" }, &path.checksum[..16]);
        let facts = format!("{}; {} masks; outputs {sum}…{same}", path.what, path.instances);
        out += &style.fact(&path.name, &facts);
    }
    if let Some(peak) = report.memory.peak {
        let over = (peak as f64 - model.bytes as f64) / 1e6;
        let stored = model.bytes as f64 / 1e6;
        let facts =
            format!("{:.0} MB resident at most: the {stored:.0} MB of weights and {over:.0} MB", peak as f64 / 1e6);
        out += &style.fact("memory", &facts);
    }
    if let Some(comparison) = comparison {
        out += "\n";
        out += &compared(comparison, style);
    }
    out
}

/// Opening, first answer, and each path with its stages.
fn times(report: &Report) -> Vec<Vec<String>> {
    let head = ["ms", "n", "min", "mean", "median", "p90", "p95", "p99", "CV", "per s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let single = |name: String, value: f64| {
        let blank = String::new();
        let mut row = vec![name, "1".to_owned(), blank.clone(), blank, ms(value)];
        row.resize(head.len(), String::new());
        row
    };
    rows.push(single("opening".to_owned(), report.opening_ms));
    rows.push(single(format!("first answer ({})", report.first.path), report.first.total_ms));
    for path in &report.paths {
        for (name, s, per_second) in lines(path) {
            // Stages stand indented below their path.
            let name = match (name.split_once('/'), &path.load) {
                (Some((_, "load")), Some(load)) => format!("  {} sessions at once", load.sessions),
                (Some((_, stage)), _) => format!("  {stage}"),
                (None, _) => name,
            };
            let mut row = vec![name, s.n.to_string()];
            row.extend([s.min, s.mean, s.median, s.p90, s.p95, s.p99].map(ms));
            row.push(s.cv.map(|cv| format!("{:.1} %", 100.0 * cv)).unwrap_or_default());
            row.push(per_second.map(rate).unwrap_or_default());
            rows.push(row);
        }
    }
    rows
}

/// The part of `--compare`.
fn compared(comparison: &Comparison, style: &dyn Style) -> String {
    let mut out = String::new();
    let old = &comparison.old;
    let which = old.commit.as_ref().or(old.sha256.as_ref()).map(|id| format!(", program {id}")).unwrap_or_default();
    out += &style.fact("compared with", &format!("the report of {}{which}", date(old.unix_time)));
    for difference in &comparison.differences {
        out += &style.note(&format!("NOT THE PROGRAM ALONE differs: {difference}"));
    }
    for output in comparison.outputs.iter().filter(|o| !o.same) {
        out += &style.note(&format!("{}: the OUTPUTS DIFFER from the old report's", output.path));
    }
    if !comparison.outputs.is_empty() && comparison.outputs.iter().all(|o| o.same) {
        out += &style.fact("outputs", "the same, bit for bit");
    }
    let head = ["ms, medians", "old", "new", "ratio", "noise band", "verdict"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in &comparison.rows {
        let Row { name, old, new, ratio, band, verdict } = row;
        let (name, scale) = if name == "memory" { ("peak memory, MB", 1e-6) } else { (name.as_str(), 1.0) };
        let band = band.map(|[low, high]| format!("{low:.3}–{high:.3}")).unwrap_or_default();
        let fields = [name, &ms(old * scale), &ms(new * scale), &format!("{ratio:.3}"), &band, verdict.unwrap_or("")];
        rows.push(fields.map(str::to_owned).to_vec());
    }
    out + &style.table(&rows)
}

/// A moment in UTC, to the minute. The calendar repeats every 400 years of 146,097 days, here counted from a first of
/// March, so that a leap day is a year's last.
fn date(unix_time: u64) -> String {
    // From 0000-03-01 to 1970-01-01.
    let days = unix_time / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the five after them.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    let minute = unix_time / 60;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minute / 60 % 24, minute % 60)
}

/// Milliseconds with some four digits.
fn ms(value: f64) -> String {
    let digits = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Calls per second with three digits.
fn rate(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { ms_like(value) }
}

fn ms_like(value: f64) -> String {
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_some_four_digits() {
        assert_eq!(
            [0.01234, 1.23456, 12.3456, 123.456, 12345.6].map(ms),
            ["0.012", "1.235", "12.35", "123.5", "12346"]
        );
        assert_eq!([0.0625, 15.55, 1234.5].map(rate), ["0.062", "15.6", "1234"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @N` has them: the epoch, a leap day, the last day of a leap year, a century without one.
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_827_640), "2000-02-29 12:34 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn fields_with_commas_and_quotes_are_quoted() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("CPU, \"2\" threads"), "\"CPU, \"\"2\"\" threads\"");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["ms", "n"], vec!["  écran", "10"]].map(|r| r.into_iter().map(str::to_owned).collect());
        assert_eq!(Plain.table(&rows), "\nms        n\n  écran  10\n");
        assert_eq!(Markdown.table(&rows), "\n| ms | n |\n|---|--:|\n| · écran | 10 |\n");
    }
}
