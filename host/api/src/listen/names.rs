//! What a client certificate calls its holder.

use der::Decode;
use innkeeper_domain::limits::{CERTIFICATE_NAME_BYTES_MAX, CERTIFICATE_NAMES_MAX};
use x509_cert::Certificate;
use x509_cert::der;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The names in a certificate (DER): its URIs, then its DNS names, then its subject's common name, as `URI:..`,
/// `DNS:..`, `CN:..`. What is no such name is left out, and so is one with control characters, or too long. An
/// error says in words why a certificate can't be read, though rustls may have taken it.
pub fn names(certificate: &[u8]) -> Result<Vec<String>, String> {
    let certificate = Certificate::from_der(certificate).map_err(|e| e.to_string())?.tbs_certificate;
    let alternatives = certificate.get::<SubjectAltName>().map_err(|e| e.to_string())?;
    let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
    let uris = alternatives.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(("URI", uri.as_str())),
        _ => None,
    });
    let hosts = alternatives.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(("DNS", name.as_str())),
        _ => None,
    });
    let attributes = certificate.subject.0.iter().flat_map(|set| set.0.iter());
    let common = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    let common = common.filter_map(|attribute| text(&attribute.value).map(|name| ("CN", name)));
    let good = |name: &str| {
        (1..=CERTIFICATE_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    let all = uris.chain(hosts).chain(common).filter(|(_, name)| good(name));
    Ok(all.map(|(kind, name)| format!("{kind}:{name}")).take(CERTIFICATE_NAMES_MAX).collect())
}

/// Older encodings than these two are nobody's name.
fn text(value: &der::Any) -> Option<&str> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str());
    utf8.or_else(|| value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    fn certificate(alternatives: Vec<SanType>, common: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternatives;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "CN=admin");
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common.into()));
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn ia5(text: &str) -> Ia5String {
        Ia5String::try_from(text).expect("ASCII")
    }

    #[test]
    fn uris_come_first_then_dns_then_the_common_name() {
        let alternatives = vec![
            SanType::DnsName(ia5("ci.example.com")),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::URI(ia5("spiffe://example.com/ci")),
            SanType::Rfc822Name(ia5("ci@example.com")),
            SanType::DnsName(ia5("ci2.example.com")),
        ];
        assert_eq!(
            names(&certificate(alternatives, Some("builder"))).expect("it can be read"),
            ["URI:spiffe://example.com/ci", "DNS:ci.example.com", "DNS:ci2.example.com", "CN:builder"]
        );
        assert_eq!(names(&certificate(vec![], None)).expect("it can be read"), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_could_be_taken_for_another_is_left_out() {
        let long = "x".repeat(CERTIFICATE_NAME_BYTES_MAX + 1);
        for bad in ["admin\0.evil.example", "a\nb", &long] {
            assert_eq!(names(&certificate(vec![], Some(bad))).expect("it can be read"), Vec::<String>::new());
        }
        let many = (0..100).map(|n| SanType::DnsName(ia5(&format!("n{n}.example")))).collect();
        assert_eq!(names(&certificate(many, None)).expect("it can be read").len(), CERTIFICATE_NAMES_MAX);
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        let whole = certificate(vec![], Some("ci"));
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(names(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
