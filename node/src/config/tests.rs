//! Where settings come from, and what is said about wrong ones.

use super::*;
use clap::{CommandFactory, Parser};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArgs,
}

fn valid() -> Config {
    let peers = "0=a:3300,1=b:3300,2=c:3300".parse().unwrap();
    Config::from_settings(Settings { initial_peers: Some(peers), ..Settings::default() })
}

#[test]
fn defaults_are_valid_but_for_the_founders() {
    assert_eq!(valid().validate(), Ok(()));
    let error = Config::from_settings(Settings::default()).validate().unwrap_err().to_string();
    assert!(error.starts_with("initial_peers is not set: name the nodes"), "{error}");
    assert!(error.contains("0=127.0.0.1:3300 for a cluster of one"), "{error}");
    assert_eq!((valid().heartbeat_ticks(), valid().election_ticks()), (5, 50));
}

#[test]
fn every_setting_has_a_flag_and_an_environment_variable_of_its_name() {
    let command = Line::command();
    let mut settings = 0;
    for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
        let name = argument.get_id().as_str().to_owned();
        let flag = argument.get_long().map(str::to_owned);
        assert_eq!(flag, Some(name.replace('_', "-")));
        let variable = argument.get_env().map(|v| v.to_string_lossy().into_owned());
        assert_eq!(variable, Some(format!("BALSA_{}", name.to_uppercase())));
        settings += 1;
    }
    assert!(settings > 20, "{settings}");
}

#[test]
fn help_tells_the_defaults() {
    let command = Line::command();
    for (name, default) in Config::defaults() {
        let argument = command.get_arguments().find(|a| a.get_id() == name).unwrap();
        let help = argument.get_help().unwrap().to_string().replace('\n', " ");
        let told = format!("[default: {}]", default.trim_matches('"').to_lowercase());
        assert!(help.ends_with(&told), "{name}: {help}; it is {told}");
    }
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    let text =
        r#"{"slot": 2, "election_timeout_ms": 900, "initial_peers": "1=h:3300", "log_format": "json"}"#;
    std::fs::write(&file, text).unwrap();
    let line = ["serve", "--config", file.to_str().unwrap(), "--slot", "1"];
    let config = Line::try_parse_from(line).unwrap().serve.load().unwrap();
    assert_eq!((config.founding_slot(), config.election_timeout_ms, config.heartbeat_ms), (1, 900, 50));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.initial_peers, Some(InitialPeers(vec![(1, "h:3300".to_owned())])));
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    for (text, says) in [
        ("{\"slots\": 1}", "unknown field `slots`"),
        ("{\"slot\": \"x\"}", "line 1"),
        ("{\"initial_peers\": \"x\"}", "`x` is not SLOT=HOST:PORT"),
        ("slot: 1", "expected value"),
    ] {
        std::fs::write(&file, text).unwrap();
        let args = ServeArgs { config: Some(file.clone()), settings: Settings::default() };
        let error = args.load().unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("settings.json"), "{text}: {error}");
    }
    let missing = ServeArgs { config: Some(folder.path().join("no")), settings: Settings::default() };
    assert!(matches!(missing.load(), Err(ConfigError::Unreadable { .. })));
}

/// Changes a valid config and tells what is said about it.
fn said(change: impl FnOnce(&mut Config)) -> String {
    let mut config = valid();
    change(&mut config);
    config.validate().map_or_else(|error| error.to_string(), |()| "nothing".to_owned())
}

#[test]
fn errors_name_the_setting_its_value_and_what_would_be_right() {
    let any = SocketAddr::from(([0, 0, 0, 0], 3000));
    for (said, starts) in [
        (
            said(|c| c.listen = any),
            "advertise is not set: listen is 0.0.0.0:3000, which nobody can reach; set",
        ),
        (said(|c| c.advertise = Some("h".into())), "advertise is h: it takes HOST:PORT"),
        (said(|c| c.peer_advertise = Some("h:0".into())), "peer_advertise is h:0: it takes HOST:PORT"),
        (said(|c| c.peer_listen = c.listen), "peer_listen is 127.0.0.1:3000: clients are there"),
        (said(|c| c.join = Some("http://h:3000".into())), "join is http://h:3000: initial_peers is set too"),
        (said(|c| c.data = PathBuf::new()), "data is empty: name a folder"),
        (said(|c| c.feature_level = 0), "feature_level is 0: it takes 1 to 2"),
        (said(|c| c.feature_level = 3), "feature_level is 3: it takes 1 to 2"),
        (said(|c| c.tick_ms = 0), "tick_ms is 0: it takes 1 to 1000"),
        (said(|c| c.heartbeat_ms = 15), "heartbeat_ms is 15: it must be a multiple of tick_ms (10)"),
        (said(|c| c.election_timeout_ms = 240), "election_timeout_ms is 240: it must be at least five times"),
        (said(|c| c.election_stretch_max = 0), "election_stretch_max is 0: it takes 1 to 100"),
        (said(|c| c.slot = Some(3)), "slot is 3: a founder has one of the slots of initial_peers (0=a:3300,"),
        (said(|c| c.initial_peers = "1=a:1".parse().ok()), "slot is 0: a founder has one of the slots"),
        (
            said(|c| c.request_timeout_ms = 999),
            "request_timeout_ms is 999: it must be at least twice election",
        ),
        (said(|c| c.key_bytes_max = 0), "key_bytes_max is 0: it takes 1 to 16384"),
        (said(|c| c.value_bytes_max = 64 << 20), "value_bytes_max is 67108864: it takes 1 to 3145728"),
        (
            said(|c| c.write_bytes_in_flight_max = 1),
            "write_bytes_in_flight_max is 1: it must be at least twice",
        ),
        (said(|c| c.overlay_bytes = 1), "overlay_bytes is 1: it must be at least four times value_bytes_max"),
        (said(|c| c.log_segment_bytes = 1), "log_segment_bytes is 1: it takes 1048576 to 1073741824"),
        (said(|c| c.log_segment_bytes = (8 << 20) + 1), "log_segment_bytes is 8388609: "),
        (said(|c| c.log_margin_bytes = 1), "log_margin_bytes is 1: it must be at least log_segment_bytes"),
        (said(|c| c.log_hold_bytes = 1), "log_hold_bytes is 1: it must be at least log_margin_bytes"),
        (said(|c| c.snapshot_bytes_per_second = 0), "snapshot_bytes_per_second is 0: it takes 65536 to"),
        (said(|c| c.snapshot_patience_ms = 0), "snapshot_patience_ms is 0: it takes 1000 to"),
        (said(|c| c.log_filter = "a=b=c".into()), "log_filter is a=b=c: it takes LEVEL or MODULE=LEVEL"),
        (said(|c| c.connections_max = 0), "connections_max is 0: it takes 1 to 1000000"),
        (said(|c| c.listen = any).replace("advertise", "x"), "x is not set"),
    ] {
        assert!(said.starts_with(starts), "{said}\n{starts}");
    }
    let joins = |url: &str| {
        said(|c| {
            c.initial_peers = None;
            c.join = Some(url.to_owned());
        })
    };
    for url in ["http://h:3000", "http://h", "http://h:3000/", "http://[::1]:3000"] {
        assert_eq!(joins(url), "nothing");
    }
    for url in ["", "h:3000", "https://h:3000", "http://", "http://h:3000/v1", "http://h:x"] {
        assert!(joins(url).starts_with(&format!("join is {url}: it takes the client URL")), "{}", joins(url));
    }
}

#[test]
fn founders() {
    let parsed: InitialPeers = "2=c:1, 0=a:1,1=[::1]:1".parse().unwrap();
    assert_eq!(parsed.to_string(), "0=a:1,1=[::1]:1,2=c:1");
    for (text, says) in [
        ("", "`` is not SLOT=HOST:PORT"),
        ("0=a:1,", "`` is not SLOT=HOST:PORT"),
        ("a:1", "`a:1` is not SLOT=HOST:PORT"),
        ("x=a:1", "`x=a:1` is not SLOT=HOST:PORT"),
        ("0=a", "`a` is not HOST:PORT"),
        ("0=a:1,0=b:1", "slot 0 is given twice"),
        ("0=a:1,1=a:1", "`a:1` is given twice"),
    ] {
        let error = text.parse::<InitialPeers>().unwrap_err();
        assert!(error.starts_with(says), "{text}: {error}");
    }
}
