//! Addresses and ranges as the API takes them.
//!
//! "Sloppy" reading takes what old Kubernetes took: leading zeros (as decimal) and IPv4-mapped IPv6. Strict validation
//! refuses both in new values; values that an object already holds stay valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{FieldError, FieldErrors, go_quote};

const NOT_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Reads an address; leading zeros are decimal, a mapped address is the IPv4 one.
pub fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(unmap);
    }
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

fn unmap(address: Ipv6Addr) -> IpAddr {
    match address.to_ipv4_mapped() {
        Some(v4) => v4.into(),
        None => address.into(),
    }
}

/// Reads a range; the address part is sloppy, bits beyond the prefix may be set.
pub fn parse_cidr_sloppy(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let mapped = address.contains(':') && address.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped().is_some();
    let ip = parse_sloppy(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut length: u8 =
        length.trim_start_matches('0').parse().or(if length.contains('0') { Ok(0) } else { Err(()) }).ok()?;
    if mapped {
        length = length.checked_sub(96)?;
    }
    let max = if ip.is_ipv4() { 32 } else { 128 };
    (length <= max).then_some((ip, length))
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    ipnet::IpNet::new(ip, length).map_or(ip, |net| net.network())
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|a| a.to_ipv4_mapped().is_some())
}

/// An address in a field that once was validated loosely. `old` are values the stored object has: those stay valid.
pub fn legacy_ip(errors: &mut FieldErrors, path: &str, text: &str, old: &[String]) {
    if old.iter().any(|o| o == text) {
        return;
    }
    if parse_sloppy(text).is_none() {
        errors.push(FieldError::invalid(path, text, NOT_IP));
    } else if is_mapped(text) {
        errors.push(FieldError::invalid(path, text, "must not be an IPv4-mapped IPv6 address"));
    } else if text.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(path, text, "must not have leading 0s"));
    }
}

/// A range in a field that once was validated loosely.
pub fn legacy_cidr(errors: &mut FieldErrors, path: &str, text: &str, old: &[String]) {
    if old.iter().any(|o| o == text) {
        return;
    }
    let Some((ip, length)) = parse_cidr_sloppy(text) else {
        errors.push(FieldError::invalid(path, text, NOT_CIDR));
        return;
    };
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    if is_mapped(address) {
        errors.push(FieldError::invalid(path, text, "must not have an IPv4-mapped IPv6 address"));
    } else if address.parse::<IpAddr>().is_err() || (digits.len() > 1 && digits.starts_with('0')) {
        errors.push(FieldError::invalid(path, text, "must not have leading 0s in IP or prefix length"));
    } else if masked(ip, length) != ip {
        errors.push(FieldError::invalid(path, text, "must not have bits set beyond the prefix length"));
    }
}

/// A range in a field that was always strict.
pub fn strict_cidr(errors: &mut FieldErrors, path: &str, text: &str) {
    let before = errors.len();
    legacy_cidr(errors, path, text, &[]);
    if errors.len() == before
        && let Some((ip, length)) = parse_cidr_sloppy(text)
    {
        let canonical = format!("{ip}/{length}");
        if canonical != text {
            let detail = format!("must be in canonical form ({})", go_quote(&canonical));
            errors.push(FieldError::invalid(path, text, detail));
        }
    }
}

/// An address in a field that was always strict.
pub fn strict_ip(errors: &mut FieldErrors, path: &str, text: &str) {
    let before = errors.len();
    legacy_ip(errors, path, text, &[]);
    if errors.len() == before
        && let Some(ip) = parse_sloppy(text)
        && ip.to_string() != text
    {
        let detail = format!("must be in canonical form ({})", go_quote(&ip.to_string()));
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// Addresses that cannot be endpoints or external addresses.
pub fn endpoint_ip(errors: &mut FieldErrors, path: &str, text: &str) {
    let Some(ip) = parse_sloppy(text) else {
        errors.push(FieldError::invalid(path, text, "must be a valid IP address"));
        return;
    };
    let mut refuse = |detail: String| errors.push(FieldError::invalid(path, text, detail));
    if ip.is_unspecified() {
        refuse(format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
}

/// Warnings about an address that is taken but not well written.
pub fn ip_warnings(path: &str, text: &str) -> Option<String> {
    let ip = parse_sloppy(text)?;
    let canonical = ip.to_string();
    if is_mapped(text) || text.parse::<IpAddr>().is_err() {
        return Some(format!(
            "{path}: non-standard IP address {} is invalid: use {}",
            go_quote(text),
            go_quote(&canonical)
        ));
    }
    (ip.is_ipv6() && canonical != text).then(|| {
        format!(
            "{path}: IPv6 address {} should be in RFC 5952 canonical format ({})",
            go_quote(text),
            go_quote(&canonical)
        )
    })
}

/// Warnings about a range that is taken but not well written.
pub fn cidr_warnings(path: &str, text: &str) -> Vec<String> {
    let Some((ip, length)) = parse_cidr_sloppy(text) else { return Vec::new() };
    let network = format!("{}/{length}", masked(ip, length));
    let mut warnings = Vec::new();
    if masked(ip, length) != ip {
        let single = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
        warnings.push(format!(
            "{path}: CIDR value {} is ambiguous in this context (should be {} or {}?)",
            go_quote(text),
            go_quote(&network),
            go_quote(&single)
        ));
    }
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    if is_mapped(address)
        || address.parse::<IpAddr>().is_err()
        || (digits.len() > 1 && digits.starts_with('0'))
    {
        warnings.push(format!(
            "{path}: non-standard CIDR value {} is invalid: use {}",
            go_quote(text),
            go_quote(&network)
        ));
    }
    if warnings.is_empty() && ip.is_ipv6() && network != text {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})",
            go_quote(text),
            go_quote(&network)
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(check: impl FnOnce(&mut FieldErrors)) -> Vec<String> {
        let mut errors = FieldErrors::new();
        check(&mut errors);
        errors.into_iter().map(|e| e.detail).collect()
    }

    #[test]
    fn addresses_are_strict_but_for_old_values() {
        let ip = |text: &str| texts(|e| legacy_ip(e, "p", text, &[]));
        assert!(ip("10.0.0.1").is_empty());
        assert!(ip("FE80::0abc").is_empty());
        assert_eq!(ip("10.0.0"), [NOT_IP]);
        assert_eq!(ip("1.2.3.256"), [NOT_IP]);
        assert_eq!(ip(""), [NOT_IP]);
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert!(texts(|e| legacy_ip(e, "p", "010.0.0.1", &["010.0.0.1".to_owned()])).is_empty());
        assert_eq!(texts(|e| strict_ip(e, "p", "FE80::abc")), ["must be in canonical form (\"fe80::abc\")"]);
    }

    #[test]
    fn ranges_are_strict_but_for_old_values() {
        let cidr = |text: &str| texts(|e| legacy_cidr(e, "p", text, &[]));
        assert!(cidr("10.0.0.0/8").is_empty());
        assert!(cidr("0.0.0.0/0").is_empty());
        assert_eq!(cidr("10.0.0.0"), [NOT_CIDR]);
        assert_eq!(cidr("10.0.0.0/33"), [NOT_CIDR]);
        assert_eq!(cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(cidr("::ffff:1.2.3.0/120"), ["must not have an IPv4-mapped IPv6 address"]);
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(
            texts(|e| strict_cidr(e, "p", "FD00::/64")),
            ["must be in canonical form (\"fd00::/64\")"]
        );
    }

    #[test]
    fn special_addresses_are_no_endpoints() {
        let ip = |text: &str| texts(|e| endpoint_ip(e, "p", text));
        assert_eq!(ip("0.0.0.0"), ["may not be unspecified (0.0.0.0)"]);
        assert_eq!(ip("::1"), ["may not be in the loopback range (127.0.0.0/8, ::1/128)"]);
        assert_eq!(ip("169.254.1.1"), ["may not be in the link-local range (169.254.0.0/16, fe80::/10)"]);
        assert_eq!(ip("ff02::1"), ["may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"]);
        assert!(ip("239.1.1.1").is_empty());
    }

    #[test]
    fn badly_written_values_are_warned_about() {
        assert_eq!(
            ip_warnings("spec.x", "010.0.0.1").unwrap(),
            "spec.x: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\""
        );
        assert_eq!(
            ip_warnings("spec.x", "FE80::1").unwrap(),
            "spec.x: IPv6 address \"FE80::1\" should be in RFC 5952 canonical format (\"fe80::1\")"
        );
        assert_eq!(
            cidr_warnings("spec.x", "10.0.0.1/8"),
            ["spec.x: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \
              \"10.0.0.1/32\"?)"]
        );
        assert!(cidr_warnings("spec.x", "10.0.0.0/8").is_empty());
    }
}
