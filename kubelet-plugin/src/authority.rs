//! The name of a registration socket under `plugins_registry`, and why it holds an `@`.
//!
//! The kubelet's plugin manager dials such a socket by its plain path, so gRPC sends the percent-encoded path as the
//! request's `:authority`: `%2Fvar%2Flib%2Fkubelet%2F…`. Rust's `http` crate refuses `%` in a host, and its HTTP/2 server
//! resets the stream with `PROTOCOL_ERROR`; the kubelet then retries for ever. What stands before an `@` is parsed as user
//! information, where `%2F` is legal. So a file name of the form `<driver>-<uid>@reg.sock` makes `reg.sock` the host, and
//! registration works (seen on kubelet 1.36.2). The classic `kubelet.sock` path is not affected: there we are the client.

use crate::paths::SOCKET_PATH_LIMIT;

/// The file name of the registration socket of a DRA driver, unique per instance so that two can overlap in an upgrade.
///
/// # Errors
///
/// [`RegistrationNameError`] where the parts cannot stand in a file name that the kubelet finds and dials.
pub fn dra_registration_socket_name(
    driver: &str,
    uid: &str,
) -> Result<String, RegistrationNameError> {
    let refuse = |part: &str, rule| Err(RegistrationNameError { part: part.to_owned(), rule });
    for part in [driver, uid] {
        if part.is_empty() {
            return refuse(part, "it must not be empty");
        }
        // The kubelet skips hidden files.
        if part.starts_with('.') {
            return refuse(part, "it must not begin with a dot");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !part.chars().all(plain) {
            return refuse(part, "it may hold only letters, digits, - _ and .");
        }
    }
    let name = format!("{driver}-{uid}@reg.sock");
    if name.len() > SOCKET_PATH_LIMIT {
        return refuse(&name, "it is longer than the path of a Unix socket may be");
    }
    Ok(name)
}

/// A part of a socket name that the kubelet would not find or dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} cannot name a registration socket: {rule}")]
pub struct RegistrationNameError {
    part: String,
    rule: &'static str,
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;

    use super::*;

    /// What the kubelet's gRPC library makes of a dialled path: everything but these characters is percent-encoded.
    fn encode_authority(path: &str) -> String {
        let kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]@".contains(&b);
        path.bytes()
            .map(|b| if kept(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    }

    #[test]
    fn a_plain_name_cannot_be_registered_with() {
        let path = "/var/lib/kubelet/plugins_registry/gpu.example.com-reg.sock";
        let authority = encode_authority(path);
        assert!(authority.starts_with("%2Fvar%2Flib"));
        assert!(authority.parse::<Authority>().is_err(), "the @ would not be needed any more");
    }

    #[test]
    fn our_name_parses_as_an_authority() {
        let uid = "0e2c7d3c-6f0c-4a3a-9d0e-7a2f4b6a1c55";
        let name = dra_registration_socket_name("gpu.vgpu.dev", uid).unwrap();
        let authority: Authority =
            encode_authority(&format!("/var/lib/kubelet/plugins_registry/{name}")).parse().unwrap();
        assert_eq!(authority.host(), "reg.sock");
    }

    #[test]
    fn odd_parts_are_refused() {
        for (driver, uid) in
            [("", "u"), ("d", ""), (".d", "u"), ("d/e", "u"), ("d@e", "u"), ("d", "u v")]
        {
            assert!(dra_registration_socket_name(driver, uid).is_err(), "{driver:?} {uid:?}");
        }
        assert!(dra_registration_socket_name(&"d".repeat(100), "uid").is_err());
    }
}
