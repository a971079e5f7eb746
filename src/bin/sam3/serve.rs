//! `sam3 serve`: the arguments of the server, and its start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, RangedU64ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use sam3::serve::{self, Options, Tls};
use sam3::{Error, Result};

use crate::args::{self, model_args, positive};
use crate::outputs::say;

/// `sam3 serve`.
pub struct Serve {
    model: args::Model,
    options: Options,
}

/// The grammar.
pub fn command() -> Command {
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let file = |name, form, help| value(name, form, help).value_parser(PathBufValueParser::new());
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let count = |name, form, help| value(name, form, help).value_parser(positive()).allow_negative_numbers(true);
    let any = RangedU64ValueParser::<usize>::new();
    Command::new("serve")
        .about("Serves the model over HTTP: fal's API, and a page to try it.")
        .long_about(
            "Serves the model over HTTP: fal's API (POST /fal-ai/sam-3/image and its kin, the queue, uploads), the routes \
             of Roboflow's and X-AnyLabeling's clients, and a page at / to try it. /openapi.json describes all of it.\n\n\
             Only programs on this machine can reach it unless --addr says otherwise; then set --api-key, too.",
        )
        .arg(
            value("addr", "ADDR:PORT", "Where to listen; port 0 takes a free one")
                .env("SAM3_ADDR")
                .default_value("127.0.0.1:8333"),
        )
        .next_help_heading("Model")
        .args(model_args())
        .next_help_heading("Load")
        .arg(count("sessions", "N", "Requests that are worked on at the same time [default: 2]"))
        .arg(
            value("queue", "N", "Requests that may wait; one more gets 429 [default: 32]")
                .value_parser(any)
                .allow_negative_numbers(true),
        )
        .arg(count("timeout", "SECONDS", "Longest time for a request [default: 600]"))
        .arg(count("drain", "SECONDS", "Time to finish after a signal to stop [default: 30]"))
        .arg(count("cache", "MIB", "Memory for encoded pictures [default: 1024]"))
        .next_help_heading("Access")
        .arg(
            value("api-key", "KEY", "Asks for this key in Authorization: Key …; repeat for several")
                .env("SAM3_API_KEY")
                .hide_env_values(true)
                .value_delimiter(',')
                .action(ArgAction::Append),
        )
        .arg(flag("allow-fetch", "Fetches pictures from public http(s) addresses, and delivers webhooks"))
        .arg(file("tls-cert", "PEM", "Chain of certificates for https").requires("tls-key"))
        .arg(file("tls-key", "PEM", "Its private key").requires("tls-cert"))
        .arg(
            file("tls-self-signed", "PEM", "https with a certificate for localhost, made now and written there")
                .conflicts_with("tls-cert"),
        )
        .next_help_heading("Limits")
        .arg(file("dir", "DIR", "Keeps results and uploads there instead of in memory").env("SAM3_DIR"))
        .arg(count("files", "MIB", "Room for results and uploads [default: 512]"))
        .arg(count("lifetime", "SECONDS", "How long results and uploads are kept [default: 3600]"))
        .arg(count("max-body", "MIB", "Longest request [default: 68]"))
        .arg(count("max-pixels", "N", "Largest picture [default: 67108864]"))
        .arg(flag("quiet", "Writes no log"))
}

/// Reads everything.
pub fn parse(m: &ArgMatches) -> Result<Serve> {
    let model = args::Model::parse(m)?;
    let mut options = Options::default();
    let addr = m.get_one::<String>("addr").expect("has a default");
    options.addr = addr.parse().map_err(|_| {
        Error::invalid(format!("--addr {addr}: expected an address and a port, such as 127.0.0.1:8333 or [::1]:8333"))
    })?;
    let count = |name: &str| m.get_one::<usize>(name).copied();
    let seconds = |name: &str| count(name).map(|n| Duration::from_secs(n.min(1 << 32) as u64));
    let mib = |name: &str| {
        let bytes =
            count(name).map(|n| n.checked_mul(1 << 20).ok_or_else(|| Error::invalid(format!("--{name}: too much"))));
        bytes.transpose()
    };
    set(&mut options.sessions, count("sessions"));
    set(&mut options.queue, count("queue"));
    set(&mut options.timeout, seconds("timeout"));
    set(&mut options.drain, seconds("drain"));
    set(&mut options.lifetime, seconds("lifetime"));
    set(&mut options.cache_bytes, mib("cache")?);
    set(&mut options.file_bytes, mib("files")?);
    set(&mut options.max_body, mib("max-body")?);
    set(&mut options.max_pixels, count("max-pixels").map(|n| n as u64));
    options.bodies_bytes = options.bodies_bytes.max(options.max_body);
    options.api_keys =
        m.get_many::<String>("api-key").into_iter().flatten().filter(|k| !k.is_empty()).cloned().collect();
    options.allow_fetch = m.get_flag("allow-fetch");
    options.log = !m.get_flag("quiet");
    let path = |name: &str| m.get_one::<PathBuf>(name).cloned();
    options.dir = path("dir");
    options.tls = match (path("tls-cert"), path("tls-key"), path("tls-self-signed")) {
        (Some(cert), Some(key), _) => Tls::Files { cert, key },
        (_, _, Some(pem)) => Tls::SelfSigned(pem),
        _ => Tls::Off,
    };
    options.demo = model.path.is_none();
    options.model_name = model.path.as_deref().map_or_else(|| "sam3-demo".into(), name);
    Ok(Serve { model, options })
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// What people call a checkpoint: its directory.
fn name(path: &Path) -> String {
    let dir = if path.extension().is_some_and(|e| e == "safetensors") { path.parent().unwrap_or(path) } else { path };
    dir.file_name().map_or_else(|| "sam3".into(), |n| n.to_string_lossy().into_owned())
}

/// Opens the model, serves it until a signal, drains.
pub fn run(args: &Serve) -> Result<()> {
    args.model.check()?;
    if let Some(warning) = warning(args.options.addr, &args.options.api_keys) {
        eprintln!("sam3: {warning}");
    }
    let model = args.model.open()?;
    serve::run(model, args.options.clone(), |url| {
        // If nobody reads it, the server serves all the same.
        let _ = say(&format!("sam3 listens on {url}\n"));
    })
}

/// What to say about a server that others can reach.
fn warning(addr: SocketAddr, keys: &[String]) -> Option<String> {
    let open = !addr.ip().is_loopback() && keys.is_empty();
    open.then(|| {
        format!("{addr} can be reached by other machines, and no --api-key is set: anybody may use this server")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(words: &str) -> Result<Serve> {
        let line = std::iter::once("serve").chain(words.split_whitespace());
        let matches = command().try_get_matches_from(line).map_err(|e| Error::invalid(e.to_string()))?;
        parse(&matches)
    }

    #[test]
    fn options_are_read() {
        command().debug_assert();
        let a = parse_line(
            "--model x/tiny/model.safetensors --addr [::1]:0 --sessions 3 --queue 0 --api-key aaaaaaaa,bbbbbbbb --timeout 5 \
             --tls-self-signed c.pem --allow-fetch --cache 7 --max-body 600",
        )
        .unwrap();
        let o = &a.options;
        assert_eq!((o.model_name.as_str(), o.sessions, o.queue, o.cache_bytes), ("tiny", 3, 0, 7 << 20));
        assert_eq!((o.api_keys.len(), o.timeout, o.allow_fetch), (2, Duration::from_secs(5), true));
        assert!(matches!(o.tls, Tls::SelfSigned(_)) && o.bodies_bytes >= o.max_body);
        for wrong in ["--addr 8333", "--sessions 0", "--tls-cert a.pem", "--queue -1", "--cache 99999999999999999"] {
            assert!(parse_line(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn open_servers_are_warned_about() {
        let all: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert!(warning(all, &[]).is_some() && warning(all, &["k".into()]).is_none());
        assert!(warning("127.0.0.1:1".parse().unwrap(), &[]).is_none());
    }
}
