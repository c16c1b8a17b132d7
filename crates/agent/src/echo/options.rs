//! The command line of the built-in image.

/// Which ports to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// With none of any kind: 8080.
    pub http: Vec<u16>,
    pub tcp: Vec<u16>,
    pub udp: Vec<u16>,
    /// Do not serve: flip the readiness of the one that serves HTTP on the first port here.
    pub set_ready: Option<bool>,
}

impl Options {
    /// Reads what follows `echo`. Fails with a text for the user.
    pub fn from_args(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (arg, args.next()),
            };
            let value = value.ok_or_else(|| format!("{name} needs a value"))?;
            let ports = match name.as_str() {
                "--http" => &mut options.http,
                "--tcp" => &mut options.tcp,
                "--udp" => &mut options.udp,
                "--set-ready" => {
                    let ready =
                        value.parse().map_err(|_| format!("--set-ready is true or false, not {value:?}"))?;
                    options.set_ready = Some(ready);
                    continue;
                }
                _ => {
                    return Err(format!(
                        "unknown option {name}; there are --http, --tcp, --udp and --set-ready"
                    ));
                }
            };
            for port in value.split(',') {
                let port = port.parse().ok().filter(|port| *port > 0);
                ports
                    .push(port.ok_or_else(|| format!("{name} wants a port from 1 to 65535, not {value:?}"))?);
            }
        }
        Ok(options)
    }

    pub(super) fn http_or_default(&self) -> Vec<u16> {
        if self.http.is_empty() && (self.set_ready.is_some() || self.tcp.is_empty() && self.udp.is_empty()) {
            return vec![8080];
        }
        self.http.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::from_args(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn ports_repeat() {
        let options = parse("--http 80 --http=81,82 --tcp 9000 --udp 9001").unwrap();
        assert_eq!((options.http, options.tcp, options.udp), (vec![80, 81, 82], vec![9000], vec![9001]));
    }

    #[test]
    fn http_is_the_default() {
        assert_eq!(parse("").unwrap().http_or_default(), [8080]);
        assert_eq!(parse("--tcp 1").unwrap().http_or_default(), Vec::<u16>::new());
        assert_eq!(parse("--set-ready false").unwrap().http_or_default(), [8080]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("--http 0"), Err("--http wants a port from 1 to 65535, not \"0\"".into()));
        assert_eq!(parse("--tcp"), Err("--tcp needs a value".into()));
        assert_eq!(parse("--set-ready no"), Err("--set-ready is true or false, not \"no\"".into()));
        assert!(parse("--sctp 1").unwrap_err().starts_with("unknown option --sctp"));
    }
}
