//! The port, met by good and bad clients.

use super::*;
use futures::StreamExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long a good client may be held up.
const PROMPT: Duration = Duration::from_secs(5);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this authority's. Serial numbers below 128 are one byte.
    fn pair(&self, name: &str, serial: u64, expires: i32) -> Pair {
        let mut params = CertificateParams::new(vec![name.into()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(expires, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    fn revoking(&self, serials: &[u64], next_update: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// A port with TLS, and what its clients need.
struct Port {
    folder: tempfile::TempDir,
    authority: Authority,
    told: Arc<Notify>,
    address: SocketAddr,
    connections: Pin<Box<dyn futures::Stream<Item = Result<Connection, Infallible>> + Send>>,
    tasks: JoinSet<()>,
}

impl Port {
    async fn open(client_ca: Option<&Authority>, client_crl: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("servers");
        let file = |name: &str, text: &str| -> PathBuf {
            fs::write(folder.path().join(name), text).expect("a file");
            folder.path().join(name)
        };
        let pair = authority.pair("localhost", 1, 2099);
        let files = TlsFiles {
            certificate: file("cert", &pair.certificate),
            key: file("key", &pair.key),
            client_ca: client_ca.map(|authority| file("client-ca", &authority.pem)),
            client_crl: client_crl.map(|list| file("client-crl", &list)),
        };
        let tls = Arc::new(Tls::load(files).expect("good files"));
        let (told, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
        tasks.spawn(Arc::clone(&tls).keep_fresh(Arc::clone(&told), CancellationToken::new()));
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("it has one");
        let connections = Box::pin(Listener::tls(tcp, tls).incoming());
        Self { folder, authority, told, address, connections, tasks }
    }

    /// Connects as a client that believes `authority`, with a certificate or without. What the host sees of it, or
    /// why it is refused by one side.
    async fn meet(&mut self, authority: &str, own: Option<&Pair>) -> Result<Peer, String> {
        let address = self.address;
        let client = connect(address, authority, own);
        let client = async {
            let mut stream = client.await?;
            // The end of a handshake of TLS 1.3 is only known by what comes after it.
            stream.write_all(b"hello").await.map_err(|e| e.to_string())?;
            let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 1])).await;
            read.map_or(
                Ok(stream),
                |read| Err(read.map_or_else(|e| e.to_string(), |_| "it is closed".into())),
            )
        };
        let served = self.connections.next();
        let (mut client, mut served) = (pin!(client), pin!(served));
        let both = async {
            tokio::select! {
                met = &mut client => match met {
                    Ok(_open) => Ok(served.await.expect("it never ends").expect("it never fails")),
                    Err(why) => Err(why),
                },
                connection = &mut served => {
                    client.await?;
                    Ok(connection.expect("it never ends").expect("it never fails"))
                }
            }
        };
        use tonic::transport::server::Connected;
        let met = tokio::time::timeout(PROMPT, both).await.expect("nobody is held up");
        met.map(|connection| connection.connect_info())
    }

    async fn well(&mut self) -> Peer {
        let authority = self.authority.pem.clone();
        self.meet(&authority, None).await.expect("a good client")
    }
}

async fn connect(
    address: SocketAddr,
    authority: &str,
    own: Option<&Pair>,
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            config.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connected =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())?;
    assert_eq!(connected.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Ok(connected)
}

#[tokio::test]
async fn a_client_with_the_authority_connects_and_one_without_does_not() {
    let mut port = Port::open(None, None).await;
    let peer = port.well().await;
    assert!(peer.address.ip().is_loopback() && peer.certificate.is_empty(), "{peer:?}");
    let other = Authority::new("others").pem;
    assert!(port.meet(&other, None).await.expect_err("unknown").contains("UnknownIssuer"));
    port.well().await;
}

#[tokio::test]
async fn a_client_certificate_tells_names_and_a_strangers_is_refused() {
    let clients = Authority::new("clients");
    let mut port = Port::open(Some(&clients), None).await;
    let known = port.authority.pem.clone();
    let ci = clients.pair("ci.example.com", 2, 2099);
    let peer = port.meet(&known, Some(&ci)).await.expect("a known client");
    assert_eq!(peer.certificate, ["DNS:ci.example.com", "CN:ci.example.com"]);
    assert!(port.well().await.certificate.is_empty(), "without one, it has a token to show");
    for stranger in [
        Authority::new("clients").pair("ci.example.com", 2, 2099),
        // The host's own authority isn't one of clients.
        port.authority.pair("ci.example.com", 3, 2099),
        clients.pair("ci.example.com", 4, 2001),
    ] {
        assert!(port.meet(&known, Some(&stranger)).await.is_err());
    }
    port.well().await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_once_the_list_says_so() {
    let clients = Authority::new("clients");
    let mut port = Port::open(Some(&clients), Some(clients.revoking(&[9], 2099))).await;
    let (known, ci) = (port.authority.pem.clone(), clients.pair("ci.example.com", 2, 2099));
    assert!(port.meet(&known, Some(&clients.pair("gone.example.com", 9, 2099))).await.is_err());
    port.meet(&known, Some(&ci)).await.expect("it isn't revoked yet");
    let file = port.folder.path().join("client-crl");
    let list = |list: String| fs::write(&file, list).expect("a file");
    for (revoking, wanted) in [
        (clients.revoking(&[2], 2099), false),
        (clients.revoking(&[], 2099), true),
        // An old list would hide what was revoked since.
        (clients.revoking(&[], 2021), false),
    ] {
        list(revoking);
        port.told.notify_waiters();
        until_met(&mut port, &known, Some(&ci), wanted).await;
    }
}

/// New files are taken over soon after it was told of them.
async fn until_met(port: &mut Port, authority: &str, own: Option<&Pair>, wanted: bool) {
    for _ in 0..100 {
        if port.meet(authority, own).await.is_ok() == wanted {
            return;
        }
        sleep(Duration::from_millis(20)).await;
        port.told.notify_waiters();
    }
    panic!("it never came about that the client is let in: {wanted}");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let mut port = Port::open(None, None).await;
    let old = port.authority.pem.clone();
    let mut before = connect_while_serving(&mut port, &old).await;
    let renewed = Authority::new("renewed");
    let pair = renewed.pair("localhost", 1, 2099);
    let write = |folder: &Path, name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
    write(port.folder.path(), "cert", &pair.certificate);
    port.told.notify_waiters();
    sleep(Duration::from_millis(100)).await;
    port.meet(&old, None).await.expect("half of the files is not taken over");
    write(port.folder.path(), "key", &pair.key);
    port.told.notify_waiters();
    until_met(&mut port, &renewed.pem, None, true).await;
    assert!(port.meet(&old, None).await.is_err(), "the old one isn't shown any more");
    before.0.write_all(b"still there?").await.expect("it is");
    let mut said = [0; 12];
    before.1.read_exact(&mut said).await.expect("the old connection goes on");
    assert_eq!(&said, b"still there?");
    assert_eq!(port.tasks.len(), 1);
}

async fn connect_while_serving(port: &mut Port, authority: &str) -> (TlsStream<TcpStream>, Connection) {
    let (client, served) = futures::join!(connect(port.address, authority, None), port.connections.next());
    (client.expect("a good client"), served.expect("it never ends").expect("it never fails"))
}

#[tokio::test]
async fn who_stalls_or_speaks_plain_text_holds_up_nobody() {
    let mut port = Port::open(None, None).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(port.address).await.expect("a connection");
        // The beginning of a handshake that never goes on.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
        stalled.push(stream);
    }
    let mut plain = TcpStream::connect(port.address).await.expect("a connection");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    port.well().await;
    // It is told by an alert, and closed, long before a handshake's time is over.
    let serve = async { while port.connections.next().await.is_some() {} };
    let mut answer = Vec::new();
    let closed = async { tokio::time::timeout(PROMPT, plain.read_to_end(&mut answer)).await };
    tokio::select! {
        () = serve => unreachable!("it never ends"),
        closed = closed => assert!(closed.is_ok(), "a plain client is sent away at once"),
    }
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
}

#[tokio::test]
async fn too_many_connections_of_one_address_are_closed() {
    use innkeeper_domain::limits::CONNECTIONS_PER_ADDRESS_MAX;
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("it has one");
    let mut connections = pin!(Listener::plain(tcp).incoming());
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
        let (client, served) = futures::join!(TcpStream::connect(address), connections.next());
        open.push((client.expect("connected"), served));
    }
    let mut late = TcpStream::connect(address).await.expect("connected by the kernel");
    let mut byte = [0; 1];
    tokio::select! {
        _ = connections.next() => panic!("it takes one too many"),
        read = late.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_))),
    }
    open.pop();
    let (client, served) = futures::join!(TcpStream::connect(address), connections.next());
    assert!(client.is_ok() && served.is_some(), "a place that was given back is taken again");
}
