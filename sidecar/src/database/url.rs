//! The parts of a connection string that only we understand, cut out of it: how far TLS is verified.

use super::DatabaseError;

/// A connection string, taken apart.
pub(super) struct Parts {
    /// What the client library reads itself.
    pub(super) rest: String,
    pub(super) sslmode: Option<String>,
    pub(super) sslrootcert: Option<String>,
}

pub(super) fn split(text: &str) -> Result<Parts, DatabaseError> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") {
        true => Ok(split_uri(text)),
        false => split_keywords(text),
    }
}

fn split_uri(text: &str) -> Parts {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let mut parts = Parts { rest: base.to_owned(), sslmode: None, sslrootcert: None };
    let mut separator = '?';
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => parts.sslmode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => parts.sslrootcert = Some(decoded(value)),
            _ => {
                parts.rest.push(separator);
                parts.rest.push_str(pair);
                separator = '&';
            }
        }
    }
    parts
}

fn split_keywords(text: &str) -> Result<Parts, DatabaseError> {
    let mut parts = Parts { rest: String::new(), sslmode: None, sslrootcert: None };
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| {
            DatabaseError::new("not a connection string: a keyword has no '=' and value")
        })?;
        let (value, after) = value(after.trim_start())?;
        match key.trim() {
            "sslmode" => parts.sslmode = Some(value),
            "sslrootcert" => parts.sslrootcert = Some(value),
            key => {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                parts.rest.push_str(&format!("{key}='{quoted}' "));
            }
        }
        rest = after.trim_start();
    }
    Ok(parts)
}

/// A value, plain or in single quotes, with backslash escapes in either.
fn value(text: &str) -> Result<(String, &str), DatabaseError> {
    let quoted = text.starts_with('\'');
    let (mut out, mut chars) = (String::new(), text.char_indices());
    if quoted {
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((out, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((out, &text[at..])),
            c => out.push(c),
        }
    }
    match quoted {
        true => Err(DatabaseError::new("not a connection string: a quote is not closed")),
        false => Ok((out, "")),
    }
}

fn decoded(text: &str) -> String {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_settings_are_cut_out_and_the_rest_survives_quoting() {
        let parts =
            split(r"host = a  sslmode=require password='it\'s \\ me' sslrootcert=/c.pem").unwrap();
        assert_eq!(parts.sslmode.as_deref(), Some("require"));
        assert_eq!(parts.sslrootcert.as_deref(), Some("/c.pem"));
        let config: tokio_postgres::Config = parts.rest.parse().unwrap();
        assert_eq!(config.get_password(), Some(&br"it's \ me"[..]));

        let parts =
            split("postgres://u:p@h/d?sslmode=verify-ca&application_name=x&sslrootcert=%2Fc")
                .unwrap();
        assert_eq!(parts.rest, "postgres://u:p@h/d?application_name=x");
        assert_eq!(parts.sslrootcert.as_deref(), Some("/c"));
    }
}
