//! What ties a SCRAM exchange to the server's certificate (`tls-server-end-point`, RFC 5929).

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

/// The hash of a certificate, by the hash function of its signature; `None` where that has none.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

/// `Certificate ::= SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE { id OBJECT IDENTIFIER, … }, … }`.
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (content, _) = element(certificate, SEQUENCE)?;
    let (_tbs, rest) = element(content, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (id, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    HASHES.iter().find(|(known, _)| *known == id).map(|(_, hash)| *hash)
}

/// The content of the DER element at the front, if it is of that kind, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// Signature algorithms by their hash. MD5 and SHA-1 count as SHA-256, as the RFC says.
const HASHES: [(&[u8], &Algorithm); 8] = [
    // 1.2.840.113549.1.1.{4,5,11,12,13}: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512
    (b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x04", &SHA256),
    (b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x05", &SHA256),
    (b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B", &SHA256),
    (b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0C", &SHA384),
    (b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0D", &SHA512),
    // 1.2.840.10045.4.3.{2,3,4}: ECDSA with SHA-256, SHA-384, SHA-512
    (b"\x2A\x86\x48\xCE\x3D\x04\x03\x02", &SHA256),
    (b"\x2A\x86\x48\xCE\x3D\x04\x03\x03", &SHA384),
    (b"\x2A\x86\x48\xCE\x3D\x04\x03\x04", &SHA512),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        match (high, low) {
            (0, 0..=0x7F) => out.push(low),
            _ => out.extend_from_slice(&[0x82, high, low]),
        }
        out.extend_from_slice(content);
        out
    }

    fn certificate(id: &[u8]) -> Vec<u8> {
        let tbs = der(SEQUENCE, &[7; 300]);
        let algorithm = der(SEQUENCE, &der(OBJECT_IDENTIFIER, id));
        der(SEQUENCE, &[tbs, algorithm, vec![0x03, 0x01, 0x00]].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (id, hash) in HASHES {
            let certificate = certificate(id);
            let expected = digest(hash, &certificate);
            assert_eq!(server_end_point(&certificate).unwrap(), expected.as_ref());
        }
        // Ed25519 has no hash of its own.
        assert_eq!(server_end_point(&certificate(b"\x2B\x65\x70")), None);
    }

    #[test]
    fn garbage_has_no_hash() {
        let whole = certificate(HASHES[2].0);
        for length in 0..310 {
            assert_eq!(server_end_point(&whole[..length]), None);
        }
        assert_eq!(server_end_point(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
        assert_eq!(server_end_point(&[0x30, 0x80]), None);
    }
}
