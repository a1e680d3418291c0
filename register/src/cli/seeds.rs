//! The variables of programs whose place `put` and `exec` take: register_me's and etcdbridge's. An image that sets them goes on
//! as it is.
//!
//! Source: talwai/etcd_service_publisher (`register_me.py NAME PORT` in an image's CMD), benschw/etcdbridge (start.py).

use std::ffi::OsString;

use model::{BackendId, Host, Port, Prefix, ServiceName};

use super::{Cli, Compat, ExecArgs, PutArgs, TryWhat, pause};

/// Where a variable is looked up; an empty one is as good as none.
type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How often etcdbridge's command runs, and how long it may take.
const EVERY: &str = "1s";
const PATIENCE: &str = "10s";

impl Cli {
    /// For `exec` register_me's variables as the flags that they stand for; flags that are there come before them. They come
    /// before REGISTER_SERVICE and PORT, which an image below may have set.
    pub fn with_register_me(mut args: Vec<OsString>, get: Get<'_>) -> Vec<OsString> {
        let at = Self::command_at(&args);
        if args.get(at).is_none_or(|command| command != "exec") {
            return args;
        }
        let own = args.iter().take_while(|arg| *arg != "--");
        let own: Vec<String> = own.map(|arg| arg.to_string_lossy().into_owned()).collect();
        let given = |flag: &str| own.iter().position(|arg| arg.split('=').next() == Some(flag));
        let prefix = given("--etcd-prefix").and_then(|at| {
            let (_, joined) = own[at].split_once('=').unzip();
            joined.map(str::to_owned).or_else(|| own.get(at + 1).cloned())
        });
        let prefix = prefix.or_else(|| get("ETCD_PREFIX")).unwrap_or_else(|| Prefix::default().to_string());
        let name = get("MY_SERVICE_NAME").filter(|_| given("--service").is_none());
        let port = get("LISTENING_ON_PORT").filter(|_| given("--port").is_none());
        let service = name.map(|name| format!("--service={}", below(&name, &prefix)));
        let port = port.map(|port| format!("--port={port}"));
        args.splice(at + 1..at + 1, service.into_iter().chain(port).map(OsString::from));
        args
    }
}

/// A key's name below our prefix; a key elsewhere stays whole and is refused as a service's name.
fn below<'a>(key: &'a str, prefix: &str) -> &'a str {
    let rest = key.strip_prefix(prefix.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    rest.map_or(key, |rest| rest.trim_matches('/'))
}

impl PutArgs {
    /// With `--compat etcdbridge` its variables stand for what no flag says.
    ///
    /// # Errors
    /// Every variable that is missing or cannot be meant.
    pub fn with_etcdbridge(mut self, get: Get<'_>) -> Result<Self, String> {
        if self.own.form.compat != Some(Compat::Etcdbridge) {
            return Ok(self);
        }
        let mut wrong = Vec::new();
        let mut needed = |name: &str, flag: &str| {
            let found = get(name);
            if found.is_none() {
                wrong.push(format!("{name} (or {flag}) is missing"));
            }
            found
        };
        if self.service.is_none() {
            let name = needed("SERVICE_ID", "the service's name");
            self.service =
                name.map(|name| name.parse::<ServiceName>()).transpose().map_err(|e| format!("SERVICE_ID: {e}"))?;
        }
        if self.address.is_none() {
            self.address = needed("APPLICATION_ADDRESS", "HOST:PORT");
        }
        if self.own.id.is_none() {
            self.own.id = needed("CONTAINER_ID", "--id");
        }
        if self.check == TryWhat::Nothing && self.check_command.is_none() {
            self.check_command = needed("HEALTH_CHECK", "--check-command");
        }
        if !wrong.is_empty() {
            return Err(format!("--compat etcdbridge: {}", wrong.join(", ")));
        }
        if self.check_command.is_some() {
            self.checks.check_interval = self.checks.check_interval.max(pause(EVERY)?);
            self.checks.check_timeout = self.checks.check_timeout.max(pause(PATIENCE)?);
            self.checks.fall = 1;
        }
        if self.replaces.is_none() {
            let id = get("REPLACING").map(|id| id.parse::<BackendId>());
            self.replaces = id.transpose().map_err(|e| format!("REPLACING: {e}"))?;
        }
        if let (true, Some(host)) =
            (self.own.routes.vhosts.is_empty() && self.own.routes.sni.is_empty(), get("HOST_NAME"))
        {
            self.own.routes.vhosts = vec![super::own::vhost(&host).map_err(|why| format!("HOST_NAME: {why}"))?];
        }
        if let (true, Some(etcd)) = (get("ETCD_HOST").is_none(), get("ETCD")) {
            self.own.etcd.etcd_host = etcd;
        }
        Ok(self)
    }
}

impl ExecArgs {
    /// `--url` taken apart: where others reach the program, as far as it says. A URL without a port has the one of `--port`, else its
    /// scheme's.
    ///
    /// # Errors
    /// A text that names no host.
    pub fn place_of_url(&self, url: &str) -> Result<(Host, Port), String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let wrong = |why: String| format!("--url (DISCOVERABLE_URL): {url:?} is not a URL, HOST or HOST:PORT: {why}");
        let usual = match scheme {
            "http" => Port::new(80),
            "https" => Port::new(443),
            _ => None,
        };
        if let Ok(host) = authority.parse::<Host>() {
            let missing = || wrong("it has no port, and --port (PORT, LISTENING_ON_PORT) is not given".to_owned());
            return Ok((host, self.port.or(usual).ok_or_else(missing)?));
        }
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("its host cannot be read".to_owned()))?;
        let host = host.parse().map_err(|e: model::HostError| wrong(e.to_string()))?;
        let port = port.parse().map_err(|_| wrong(format!("port {port:?} is not between 1 and 65535")))?;
        Ok((host, port))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Command;
    use super::*;

    fn get<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn register_mes_image_needs_no_other_words() {
        let image = [("MY_SERVICE_NAME", "/backends/cache_service"), ("LISTENING_ON_PORT", "5000")];
        for (line, variables, service, port) in [
            ("register exec -- bash", &image[..], "cache_service", 5000),
            ("register --log debug exec -- bash", &image, "cache_service", 5000),
            ("register exec --service mine -- bash", &image, "mine", 5000),
            ("register exec --port=1 -- bash", &image, "cache_service", 1),
            ("register exec -- bash --service x", &image, "cache_service", 5000),
            ("register exec --port 1 -- bash", &[("MY_SERVICE_NAME", "cache")], "cache", 1),
            (
                "register exec --port 1 -- bash",
                &[("MY_SERVICE_NAME", "/svc/cache"), ("ETCD_PREFIX", "/svc")],
                "cache",
                1,
            ),
            ("register exec --etcd-prefix /a/b --port 1 -- bash", &[("MY_SERVICE_NAME", "/a/b/cache")], "cache", 1),
        ] {
            let cli = Cli::try_parse_from(Cli::with_register_me(words(line), &get(variables)))
                .unwrap_or_else(|e| panic!("{line}: {e}"));
            let Command::Exec(exec) = cli.command else { panic!("{line}") };
            assert_eq!((exec.service.as_str(), exec.port.map(Port::get)), (service, Some(port)), "{line}");
        }
        let elsewhere =
            Cli::with_register_me(words("register exec -- x"), &get(&[("MY_SERVICE_NAME", "/other/cache")]));
        assert!(Cli::try_parse_from(elsewhere).unwrap_err().to_string().contains("/other/cache"));
        let put = words("register put web 10.0.0.1:80");
        assert_eq!(Cli::with_register_me(put.clone(), &get(&image)), put);
    }

    #[test]
    fn a_url_without_a_port_has_the_port_that_is_given() {
        let exec = |line: &str| match Cli::try_parse_from(words(line)).unwrap().command {
            Command::Exec(exec) => exec,
            _ => panic!("{line}"),
        };
        let with = exec("register exec --service web --port 5000 -- x");
        let without = exec("register exec --service web --url x -- x");
        for (url, given, none) in [
            ("my.domain.com", Some("my.domain.com:5000"), None),
            ("my.domain.com:81", Some("my.domain.com:81"), Some("my.domain.com:81")),
            ("http://my.domain.com/path", Some("my.domain.com:5000"), Some("my.domain.com:80")),
            ("https://user@my.domain.com", Some("my.domain.com:5000"), Some("my.domain.com:443")),
            ("http://10.0.0.1:81/x", Some("10.0.0.1:81"), Some("10.0.0.1:81")),
            ("fd00::5", Some("[fd00::5]:5000"), None),
            ("[fd00::5]:81", Some("[fd00::5]:81"), Some("[fd00::5]:81")),
            ("", None, None),
            ("a b", None, None),
            ("h:x", None, None),
        ] {
            let shown = |exec: &ExecArgs| exec.place_of_url(url).ok().map(|(host, port)| host.with_port(port));
            assert_eq!((shown(&with).as_deref(), shown(&without).as_deref()), (given, none), "{url}");
        }
        assert!(without.place_of_url("my.domain.com").unwrap_err().contains("--port"));
    }

    #[test]
    fn etcdbridges_variables_alone_suffice() {
        let put = |line: &str, variables: &[(&str, &str)]| {
            let cli = Cli::try_parse_from(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
            let Command::Put(put) = cli.command else { panic!("{line}") };
            put.with_etcdbridge(&get(variables))
        };
        let bridge = [
            ("SERVICE_ID", "web"),
            ("CONTAINER_ID", "web-2"),
            ("APPLICATION_ADDRESS", "10.0.0.5:8080"),
            ("HEALTH_CHECK", "curl -f http://10.0.0.5:8080/"),
            ("ETCD", "10.0.0.1:2379"),
            ("REPLACING", "web-1"),
            ("HOST_NAME", "web.example.com"),
        ];
        let all = put("register put --compat etcdbridge", &bridge).unwrap();
        assert_eq!(
            (all.service.unwrap().as_str(), all.address.as_deref(), all.own.id.as_deref()),
            ("web", Some("10.0.0.5:8080"), Some("web-2"))
        );
        assert_eq!(all.check_command.as_deref(), Some("curl -f http://10.0.0.5:8080/"));
        assert_eq!((all.own.etcd.etcd_host.as_str(), all.replaces.unwrap().as_str()), ("10.0.0.1:2379", "web-1"));
        assert_eq!(all.own.routes.routes().map(|r| r.to_string()).collect::<Vec<_>>(), ["web.example.com/"]);
        let flags = put("register put db 10.0.0.6:1 --id x --check tcp --compat etcdbridge", &bridge).unwrap();
        assert_eq!((flags.service.unwrap().as_str(), flags.own.id.as_deref()), ("db", Some("x")));
        assert_eq!((flags.check, flags.check_command), (TryWhat::Tcp, None));
        let error = put("register put --compat etcdbridge", &[]).unwrap_err();
        for name in ["SERVICE_ID", "APPLICATION_ADDRESS", "CONTAINER_ID", "HEALTH_CHECK"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(put("register put --compat etcdbridge", &[("SERVICE_ID", "a/b")]).unwrap_err().contains("SERVICE_ID"));
        let without = put("register put web 10.0.0.1:80", &bridge).unwrap();
        assert_eq!((without.replaces, without.own.id), (None, None), "another program's variables do not count");
    }
}
