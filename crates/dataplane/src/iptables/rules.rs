//! Rules as values: what a rule matches and does, written as `iptables-restore` reads it and read as `iptables-save`
//! writes it.
//!
//! There is no free text: names are [`Name`]s, everything else is a number or an address. What `iptables-save` prints
//! and we would never write becomes [`Rule::Foreign`], which equals none of ours.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use portolan_forward::{Family, Protocol};

/// A word that no program takes for anything else: letters, digits and a few marks, and no option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    pub fn new(text: &str) -> Option<Self> {
        let first = text.bytes().next()?;
        (first != b'-' && first != b'#' && text.chars().all(Self::may_hold)).then(|| Self(text.into()))
    }

    fn may_hold(c: char) -> bool {
        c.is_ascii_alphanumeric() || "-_.:/@+=,~#".contains(c)
    }

    /// For comments: what is not fine is left out.
    pub fn of_comment(text: &str) -> Option<Self> {
        let kept: String = text.chars().filter(|c| Self::may_hold(*c)).collect();
        Self::new(&kept)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address under a mask, which need not be a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Masked {
    pub address: IpAddr,
    pub mask: IpAddr,
}

impl Masked {
    pub fn one(address: IpAddr) -> Self {
        let mask = match address {
            IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
        };
        Self { address, mask }
    }

    pub fn range(range: IpNet) -> Self {
        Self { address: range.network(), mask: range.netmask() }
    }

    fn parse(text: &str) -> Option<Self> {
        let Some((address, mask)) = text.split_once('/') else { return Some(Self::one(text.parse().ok()?)) };
        if let Ok(range) = text.parse::<IpNet>() {
            return Some(Self::range(range));
        }
        Some(Self { address: address.parse().ok()?, mask: mask.parse().ok()? })
    }
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ipnet::ip_mask_to_prefix(self.mask) {
            Ok(prefix) => write!(f, "{}/{prefix}", self.address),
            Err(_) => write!(f, "{}/{}", self.address, self.mask),
        }
    }
}

/// What a rule asks of a packet. Rules keep them in this order, which is also that of evaluation: chance before memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    Source {
        within: Masked,
        invert: bool,
    },
    Destination {
        within: Masked,
        invert: bool,
    },
    /// Of a name that ends in `+`, all interfaces that begin so.
    Interface(Name),
    Protocol(Protocol),
    /// First and last. Needs the protocol.
    DestinationPort(u16, u16),
    SourceIsLocal,
    DestinationIsLocal,
    /// The packet begins a connection.
    New,
    /// The connection's destination was translated.
    Translated,
    /// A bit of the mark.
    Marked(u32),
    /// With this probability in parts of 2^31.
    Random(u32),
    /// The first of every so many packets that meet the rule.
    FirstOf(u32),
    Recent(Recent, Name),
}

/// What is done with a list of addresses that the kernel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Recent {
    /// Matches a source seen within so many seconds, and counts them anew.
    Update { seconds: u32 },
    /// Always matches.
    Set,
    /// Matches a source that was on the list.
    Remove,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The next rule goes on.
    Nothing,
    Accept,
    Drop,
    Return,
    Jump(Name),
    Goto(Name),
    SetBit(u32),
    FlipBit(u32),
    Dnat(IpAddr, u16),
    MasqueradeFullyRandom,
    RejectWithReset,
    RejectWithUnreachable(Family),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    Own {
        matches: Vec<Match>,
        comment: Option<Name>,
        target: Target,
    },
    /// The words of somebody else's rule, without `-A CHAIN`.
    Foreign(Arc<str>),
}

/// The unit of [`Match::Random`].
pub const CERTAIN: u32 = 1 << 31;

impl Rule {
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        let mut matches: Vec<_> = matches.into_iter().collect();
        matches.sort_unstable();
        Self::Own { matches, comment: None, target }
    }

    #[must_use]
    pub fn with_comment(self, text: &str) -> Self {
        match self {
            Self::Own { matches, target, .. } => {
                Self::Own { matches, comment: Name::of_comment(text), target }
            }
            foreign @ Self::Foreign(_) => foreign,
        }
    }

    pub fn matches(&self) -> &[Match] {
        match self {
            Self::Own { matches, .. } => matches,
            Self::Foreign(_) => &[],
        }
    }

    /// The chain that it leads to.
    pub fn leads_to(&self) -> Option<&Name> {
        match self {
            Self::Own { target: Target::Jump(chain) | Target::Goto(chain), .. } => Some(chain),
            _ => None,
        }
    }

    /// What follows `-A CHAIN ` in a line of `iptables-save`.
    pub fn parse(text: &str) -> Self {
        let words = split(text);
        let mut words = words.iter().map(String::as_str);
        parse(&mut words).unwrap_or_else(|| Self::Foreign(text.into()))
    }
}

/// The words of a line; quotation marks hold blanks together, a backslash holds the next character.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            '\\' => word.extend(chars.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

fn parse<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Rule> {
    let (mut matches, mut comment, mut target) = (Vec::new(), None, Target::Nothing);
    let (mut invert, mut seconds, mut recent) = (false, None, None);
    while let Some(word) = words.next() {
        if word == "!" {
            invert = true;
            continue;
        }
        if invert && !matches!(word, "-s" | "-d") {
            return None;
        }
        match word {
            "-s" => matches.push(Match::Source { within: Masked::parse(words.next()?)?, invert }),
            "-d" => matches.push(Match::Destination { within: Masked::parse(words.next()?)?, invert }),
            "-i" => matches.push(Match::Interface(Name::new(words.next()?)?)),
            "-p" => matches.push(Match::Protocol(protocol(words.next()?)?)),
            "-m" | "--mask" => drop(words.next()?),
            "--dport" => {
                let text = words.next()?;
                let (first, last) = text.split_once(':').unwrap_or((text, text));
                matches.push(Match::DestinationPort(first.parse().ok()?, last.parse().ok()?));
            }
            "--src-type" => matches.push(is_local(words.next()?, Match::SourceIsLocal)?),
            "--dst-type" => matches.push(is_local(words.next()?, Match::DestinationIsLocal)?),
            "--ctstate" => matches.push(match words.next()? {
                "NEW" => Match::New,
                "DNAT" => Match::Translated,
                _ => return None,
            }),
            "--mark" => matches.push(Match::Marked(bit(words.next()?)?)),
            "--mode" => matches!(words.next()?, "random" | "nth").then_some(())?,
            "--every" => matches.push(Match::FirstOf(words.next()?.parse().ok()?)),
            "--packet" => (words.next()? == "0").then_some(())?,
            "--probability" => {
                let probability: f64 = words.next()?.parse().ok()?;
                matches.push(Match::Random((probability * f64::from(CERTAIN)).round() as u32));
            }
            "--update" => recent = Some(Recent::Update { seconds: 0 }),
            "--set" => recent = Some(Recent::Set),
            "--remove" => recent = Some(Recent::Remove),
            "--seconds" => seconds = Some(words.next()?.parse().ok()?),
            "--reap" | "--rsource" => {}
            "--name" => matches.push(Match::Recent(recent?, Name::new(words.next()?)?)),
            "--comment" => comment = Some(Name::new(words.next()?)?),
            "-j" => target = parse_target(words)?,
            "-g" => target = Target::Goto(Name::new(words.next()?)?),
            _ => return None,
        }
        invert = false;
    }
    for found in &mut matches {
        if let Match::Recent(Recent::Update { seconds: of_rule }, _) = found {
            *of_rule = seconds?;
        }
    }
    matches.sort_unstable();
    Some(Rule::Own { matches, comment, target })
}

fn protocol(text: &str) -> Option<Protocol> {
    text.to_ascii_uppercase().parse().ok()
}

fn is_local(kind: &str, local: Match) -> Option<Match> {
    (kind == "LOCAL").then_some(local)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// A value that equals its mask.
fn bit(text: &str) -> Option<u32> {
    let (value, mask) = text.split_once('/')?;
    (value == mask).then(|| hex(value))?
}

/// Everything that follows `-j`: a target's options are the end of a rule.
fn parse_target<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Target> {
    let name = words.next()?;
    let option = words.next();
    let value = words.next();
    if words.next().is_some() {
        return None;
    }
    Some(match (name, option, value) {
        ("ACCEPT", None, None) => Target::Accept,
        ("DROP", None, None) => Target::Drop,
        ("RETURN", None, None) => Target::Return,
        ("MASQUERADE", Some("--random-fully"), None) => Target::MasqueradeFullyRandom,
        ("DNAT", Some("--to-destination"), Some(to)) => {
            let to: std::net::SocketAddr = to.parse().ok()?;
            Target::Dnat(to.ip(), to.port())
        }
        ("REJECT", Some("--reject-with"), Some("tcp-reset")) => Target::RejectWithReset,
        ("REJECT", Some("--reject-with"), Some("icmp-port-unreachable")) => {
            Target::RejectWithUnreachable(Family::V4)
        }
        ("REJECT", Some("--reject-with"), Some("icmp6-port-unreachable")) => {
            Target::RejectWithUnreachable(Family::V6)
        }
        ("MARK", Some("--set-xmark"), Some(mark)) => {
            let (value, mask) = mark.split_once('/')?;
            let (value, mask) = (hex(value)?, hex(mask)?);
            match mask {
                0 => Target::FlipBit(value),
                _ if mask == value => Target::SetBit(value),
                _ => return None,
            }
        }
        (chain, None, None) => Target::Jump(Name::new(chain)?),
        _ => return None,
    })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (matches, comment, target) = match self {
            Self::Foreign(text) => return f.write_str(text),
            Self::Own { matches, comment, target } => (matches, comment, target),
        };
        let mut line = String::new();
        let protocol = matches.iter().find_map(|m| match m {
            Match::Protocol(protocol) => Some(*protocol),
            _ => None,
        });
        for found in matches {
            write_match(&mut line, found, protocol)?;
        }
        if let Some(comment) = comment {
            write!(line, " -m comment --comment \"{comment}\"")?;
        }
        write_target(&mut line, target)?;
        f.write_str(line.trim_start())
    }
}

fn write_match(line: &mut String, found: &Match, protocol: Option<Protocol>) -> fmt::Result {
    let not = |invert: &bool| if *invert { " !" } else { "" };
    let small = |protocol: Protocol| protocol.as_str().to_ascii_lowercase();
    match found {
        Match::Source { within, invert } => write!(line, "{} -s {within}", not(invert)),
        Match::Destination { within, invert } => write!(line, "{} -d {within}", not(invert)),
        Match::Interface(name) => write!(line, " -i {name}"),
        Match::Protocol(protocol) => write!(line, " -p {}", small(*protocol)),
        Match::DestinationPort(first, last) => {
            let module = protocol.map(small).unwrap_or_default();
            write!(line, " -m {module} --dport {first}")?;
            if first == last { Ok(()) } else { write!(line, ":{last}") }
        }
        Match::SourceIsLocal => line.write_str(" -m addrtype --src-type LOCAL"),
        Match::DestinationIsLocal => line.write_str(" -m addrtype --dst-type LOCAL"),
        Match::New => line.write_str(" -m conntrack --ctstate NEW"),
        Match::Translated => line.write_str(" -m conntrack --ctstate DNAT"),
        Match::Marked(bit) => write!(line, " -m mark --mark {bit:#x}/{bit:#x}"),
        Match::Random(part) => {
            let probability = f64::from(*part) / f64::from(CERTAIN);
            write!(line, " -m statistic --mode random --probability {probability:.11}")
        }
        Match::FirstOf(every) => write!(line, " -m statistic --mode nth --every {every} --packet 0"),
        Match::Recent(Recent::Update { seconds }, name) => {
            write!(line, " -m recent --update --seconds {seconds} --reap --name {name} --rsource")
        }
        Match::Recent(Recent::Set, name) => write!(line, " -m recent --set --name {name} --rsource"),
        Match::Recent(Recent::Remove, name) => write!(line, " -m recent --remove --name {name} --rsource"),
    }
}

fn write_target(line: &mut String, target: &Target) -> fmt::Result {
    match target {
        Target::Nothing => Ok(()),
        Target::Accept => line.write_str(" -j ACCEPT"),
        Target::Drop => line.write_str(" -j DROP"),
        Target::Return => line.write_str(" -j RETURN"),
        Target::Jump(chain) => write!(line, " -j {chain}"),
        Target::Goto(chain) => write!(line, " -g {chain}"),
        Target::SetBit(bit) => write!(line, " -j MARK --set-xmark {bit:#x}/{bit:#x}"),
        Target::FlipBit(bit) => write!(line, " -j MARK --set-xmark {bit:#x}/0x0"),
        Target::Dnat(address, port) => {
            write!(line, " -j DNAT --to-destination {}", std::net::SocketAddr::new(*address, *port))
        }
        Target::MasqueradeFullyRandom => line.write_str(" -j MASQUERADE --random-fully"),
        Target::RejectWithReset => line.write_str(" -j REJECT --reject-with tcp-reset"),
        Target::RejectWithUnreachable(Family::V4) => {
            line.write_str(" -j REJECT --reject-with icmp-port-unreachable")
        }
        Target::RejectWithUnreachable(Family::V6) => {
            line.write_str(" -j REJECT --reject-with icmp6-port-unreachable")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iptables 1.8.9 prints them, both variants.
    const SAVED: [&str; 13] = [
        "-d 0.0.0.5/0.0.0.255 -g PORTOLAN-IP-5",
        "-d ::5/::ff -g PORTOLAN-IP-5",
        "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j PORTOLAN-PORTS",
        "-i veth+ -j RETURN",
        "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"default/web:http\" -g PORTOLAN-C-abc",
        "-p tcp -m tcp --dport 28672:32767 -g PORTOLAN-TCP-7",
        "-m mark --mark 0x4000/0x4000 -j PORTOLAN-MASQUERADE",
        "-j MARK --set-xmark 0x4000/0x0",
        "-p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination [fd00::1]:80",
        "-p tcp -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.0.0.1:80",
        "-m conntrack --ctstate DNAT -j RETURN",
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-s 10.0.0.1/32 -d 10.0.0.1/32 -j MASQUERADE --random-fully",
    ];

    #[test]
    fn what_is_saved_is_understood_and_written_alike() {
        for text in SAVED {
            let rule = Rule::parse(text);
            assert!(matches!(rule, Rule::Own { .. }), "{text}");
            assert_eq!(rule.to_string(), text);
        }
    }

    #[test]
    fn what_versions_add_makes_no_difference() {
        let ours = "-p tcp -m recent --update --seconds 60 --reap --name X --rsource -j DNAT --to-destination 10.0.0.1:80";
        let theirs = ours.replace(" --rsource", " --mask 255.255.255.255 --rsource");
        assert_eq!(Rule::parse(&theirs), Rule::parse(ours));
        assert_eq!(Rule::parse(&theirs).to_string(), ours);
        assert_eq!(
            Rule::parse("-d 10.0.0.1 -m comment --comment web -j DROP"),
            Rule::parse("-m comment --comment \"web\" -d 10.0.0.1/32 -j DROP")
        );
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        for text in [
            "-m limit --limit 1/sec -j LOG",
            "! -p tcp -j DROP",
            "-j DNAT --to-destination 10.0.0.1",
            "-m comment --comment \"a b\" -j DROP",
        ] {
            assert_eq!(Rule::parse(text), Rule::Foreign(text.into()));
            assert_eq!(Rule::parse(text).to_string(), text);
        }
    }

    #[test]
    fn names_cannot_become_options_or_lines() {
        for text in ["", "-j", "a b", "a\nb", "a\"b", "a\\b", "#a", "a'b", "ü"] {
            assert!(Name::new(text).is_none(), "{text:?}");
        }
        assert_eq!(Name::of_comment("a b\n-j \"x").unwrap().as_str(), "ab-jx");
        assert!(Name::new("default/web:http").is_some());
    }

    #[test]
    fn every_probability_survives_being_printed() {
        for n in 2..2000_u32 {
            let rule = Rule::new([Match::Random(CERTAIN / n)], Target::Return);
            assert_eq!(Rule::parse(&rule.to_string()), rule);
        }
    }
}
