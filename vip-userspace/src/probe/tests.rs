use std::net::Ipv4Addr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Long: only a test that waits for it to pass uses another one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A CA, and `ca.crt` where probes look for it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Settings of a server whose certificate holds for `name`.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        self.server_with(CertificateParams::new([name.to_owned()]).unwrap())
    }

    fn server_with(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Arc::new(config)
    }
}

/// Serves every request on every connection the same, for as long as the runtime lives.
async fn serve(tls: Arc<ServerConfig>, status: u16, body: &'static str) -> u16 {
    serve_by(tls, body, move |request, _| {
        assert_eq!(request.uri().path(), "/readyz");
        status
    })
    .await
}

/// Answers with the status that `judge` finds for a request, whose client showed a certificate or
/// not.
async fn serve_by(
    tls: Arc<ServerConfig>,
    body: &'static str,
    judge: impl Fn(&Request<hyper::body::Incoming>, bool) -> u16 + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up here.
            let Ok(tls) = TlsAcceptor::from(Arc::clone(&tls)).accept(tcp).await else {
                continue;
            };
            let certified = tls.get_ref().1.peer_certificates().is_some();
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let body = Full::new(Bytes::from_static(body.as_bytes()));
                let status = judge(&request, certified);
                Response::builder().status(status).body(body)
            });
            // The client may hang up once it knows enough.
            let _ = server::Builder::new()
                .serve_connection(TokioIo::new(tls), service)
                .await;
        }
    });
    port
}

fn prober(port: u16, timeout: Duration, trust: Trust) -> Prober {
    Prober::new(Settings {
        ask: Ask::Http("/readyz".to_owned()),
        port,
        timeout,
        keep_open: false,
        trust,
        credentials: None,
    })
}

/// What may be changed before the first probe.
fn asker(prober: &mut Prober) -> &mut Asker {
    Arc::get_mut(&mut prober.asker).unwrap()
}

/// A prober that trusts `authority`, by a file that is there as long as the folder.
fn trusting(authority: &Authority, port: u16) -> (Prober, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, &authority.pem).unwrap();
    (prober(port, TIMEOUT, Trust::Ca(file)), folder)
}

fn reason(result: Found) -> String {
    match result.probe {
        Probe::NotReady(reason) => {
            let text = reason.as_str();
            let why = match () {
                () if text.contains("CA file") => Failure::Ca,
                () if text.starts_with("TLS: ") => Failure::Tls,
                () if text.starts_with("HTTP: ") => Failure::Http,
                () => Failure::Status,
            };
            assert_eq!(result.failure, Some(why), "{reason}");
            reason
        }
        other => panic!("expected NotReady, got {other:?}"),
    }
}

fn unknown(result: Found) -> String {
    match result.probe {
        Probe::Unknown(reason) => reason,
        other => panic!("expected Unknown, got {other:?}"),
    }
}

fn hung(result: Found) -> String {
    match result.probe {
        Probe::Hung { reason, .. } => {
            assert_eq!(result.failure, Some(Failure::AnswerTimeout));
            reason
        }
        other => panic!("expected Hung, got {other:?}"),
    }
}

fn failure(result: Found) -> (Probe, Option<Failure>) {
    (result.probe, result.failure)
}

#[tokio::test]
async fn status_200_is_ready() {
    let authority = Authority::new();
    let port = serve(authority.server("127.0.0.1"), 200, "ok").await;
    let (prober, _folder) = trusting(&authority, port);
    for _ in 0..3 {
        let result = prober.probe(LOCALHOST.into()).await;
        assert!(
            result.probe == Probe::Ready && result.rtt.is_some(),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn the_end_of_a_servers_certificate_is_known_from_the_first_answer_on() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2191, 5, 17);
    let end = params.not_after.unix_timestamp();
    let port = serve(authority.server_with(params), 503, "").await;
    let (prober, _folder) = trusting(&authority, port);
    for _ in 0..2 {
        let found = prober.probe(LOCALHOST.into()).await;
        assert_eq!(found.certificate_not_after, Some(end), "{found:?}");
        assert_eq!(found.failure, Some(Failure::Status));
    }
    // It is known of this server alone.
    let other = prober.probe(IpAddr::from([127, 0, 0, 2])).await;
    assert_eq!(other.certificate_not_after, None);
}

#[tokio::test]
async fn any_other_status_is_not_ready_and_names_the_failed_checks() {
    let authority = Authority::new();
    let body = "[+]ping ok\n[-]etcd failed: reason no_forward\n[-]shutdown failed: no_forward\n";
    let port = serve(authority.server("127.0.0.1"), 503, body).await;
    let (prober, _folder) = trusting(&authority, port);
    assert_eq!(
        reason(prober.probe(LOCALHOST.into()).await),
        "503 Service Unavailable, failed: etcd, shutdown"
    );
}

#[tokio::test]
async fn one_that_wants_credentials_serves_and_is_not_known_to_be_ready() {
    let authority = Authority::new();
    for (status, text) in [
        (401, "401 Unauthorized without credentials"),
        (403, "403 Forbidden without credentials"),
    ] {
        let port = serve(authority.server("127.0.0.1"), status, "").await;
        let (prober, _folder) = trusting(&authority, port);
        let result = prober.probe(LOCALHOST.into()).await;
        assert_eq!(unknown(result), text);
    }
    // Not if anybody may have said so.
    let port = serve(Authority::new().server("127.0.0.1"), 401, "").await;
    let (prober, _folder) = trusting(&authority, port);
    let reason = reason(prober.probe(LOCALHOST.into()).await);
    assert!(reason.starts_with("TLS: "), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_ready_unless_all_are_believed() {
    let port = serve(Authority::new().server("127.0.0.1"), 200, "ok").await;
    let (careful, folder) = trusting(&Authority::new(), port);
    let reason = reason(careful.probe(LOCALHOST.into()).await);
    let ca = folder.path().join("ca.crt");
    assert!(reason.starts_with("TLS: "), "{reason}");
    assert!(reason.contains(&format!("CA {}", ca.display())), "{reason}");

    let result = prober(port, TIMEOUT, Trust::Insecure)
        .probe(LOCALHOST.into())
        .await;
    assert!(
        result.probe == Probe::Ready && result.rtt.is_some(),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_node_is_not_ready() {
    let authority = Authority::new();
    let port = serve(authority.server("10.0.0.11"), 200, "ok").await;
    let (prober, _folder) = trusting(&authority, port);
    let reason = reason(prober.probe(LOCALHOST.into()).await);
    assert!(reason.starts_with("TLS: "), "{reason}");
}

#[tokio::test]
async fn the_ca_file_may_come_late_and_may_change() {
    let (first, second) = (Authority::new(), Authority::new());
    let port = serve(second.server("127.0.0.1"), 200, "ok").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let prober = prober(port, TIMEOUT, Trust::Ca(file.clone()));
    let missing = reason(prober.probe(LOCALHOST.into()).await);
    assert!(missing.starts_with("no CA file yet"), "{missing}");

    std::fs::write(&file, "no certificate at all").unwrap();
    let empty = reason(prober.probe(LOCALHOST.into()).await);
    assert!(empty.contains("no certificate in PEM"), "{empty}");

    std::fs::write(&file, &first.pem).unwrap();
    let wrong = reason(prober.probe(LOCALHOST.into()).await);
    assert!(wrong.starts_with("TLS: "), "{wrong}");

    // Both, so that the length changes too, however coarse the file system's clock.
    std::fs::write(&file, format!("{}{}", first.pem, second.pem)).unwrap();
    let result = prober.probe(LOCALHOST.into()).await;
    assert!(
        result.probe == Probe::Ready && result.rtt.is_some(),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_closed_port_is_refused_with_and_without_a_ca_file() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((LOCALHOST, 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (with, _folder) = trusting(&Authority::new(), port);
    assert_eq!(
        failure(with.probe(LOCALHOST.into()).await),
        (Probe::Refused, Some(Failure::Refused))
    );
    let without = prober(port, TIMEOUT, Trust::Ca("/nonexistent/ca.crt".into()));
    assert_eq!(
        failure(without.probe(LOCALHOST.into()).await),
        (Probe::Refused, Some(Failure::Refused))
    );
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_is_found_out_whatever_is_asked() {
    // The kernel accepts; nobody ever reads.
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeout = Duration::from_millis(300);
    // Also where there is no CA yet.
    for trust in [Trust::Insecure, Trust::Ca("/nonexistent/ca.crt".into())] {
        for ask in [Ask::Http("/readyz".to_owned()), Ask::Tls] {
            let prober = Prober::new(Settings {
                ask,
                port,
                timeout,
                keep_open: false,
                trust: trust.clone(),
                credentials: None,
            });
            let reason = hung(prober.probe(LOCALHOST.into()).await);
            assert_eq!(reason, "timed out after 300ms");
        }
    }
}

/// Serves requests so long after they came.
async fn serve_late(
    tls: Arc<ServerConfig>,
    delay: Arc<Mutex<Duration>>,
    status: u16,
    body: &'static str,
) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, delay) = (Arc::clone(&tls), Arc::clone(&delay));
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let Ok(tls) = TlsAcceptor::from(tls).accept(tcp).await else {
                    return;
                };
                let service = service_fn(async |_: Request<hyper::body::Incoming>| {
                    let pause = *delay.lock().unwrap();
                    tokio::time::sleep(pause).await;
                    let body = Full::new(Bytes::from_static(body.as_bytes()));
                    Response::builder().status(status).body(body)
                });
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = server::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
                counted.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (port, open)
}

#[tokio::test]
async fn what_a_server_says_too_late_is_told_with_the_time_outs_that_follow() {
    let authority = Authority::new();
    let body = "[+]ping ok\n[-]etcd failed: reason no_forward\nreadyz check failed\n";
    let delay = Arc::new(Mutex::new(Duration::from_secs(2)));
    let tls = authority.server("127.0.0.1");
    let (port, open) = serve_late(tls, Arc::clone(&delay), 500, body).await;
    let (trusting, folder) = trusting(&authority, port);
    drop(trusting);
    let ca = Trust::Ca(folder.path().join("ca.crt"));
    let prober = prober(port, Duration::from_millis(400), ca);
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(hung(prober.probe(LOCALHOST.into()).await));
        let connections = open.load(std::sync::atomic::Ordering::Relaxed);
        assert!(connections <= 3, "{connections} connections wait");
        if told.len() > 6 && told.last().is_some_and(|text| text.contains("etcd")) {
            break;
        }
    }
    assert_eq!(told[0], "timed out after 400ms");
    let last = told.last().unwrap();
    assert!(
        last.starts_with("timed out after 400ms; answered after 2.")
            && last.ends_with(": 500 Internal Server Error, failed: etcd"),
        "{told:?}"
    );
    // It answers in time, and hangs anew: for another reason, maybe.
    *delay.lock().unwrap() = Duration::ZERO;
    let found = reason(prober.probe(LOCALHOST.into()).await);
    assert_eq!(found, "500 Internal Server Error, failed: etcd");
    *delay.lock().unwrap() = Duration::from_secs(60);
    let found = hung(prober.probe(LOCALHOST.into()).await);
    assert_eq!(found, "timed out after 200ms");
}

#[tokio::test]
async fn a_connection_that_is_kept_open_is_used_again_until_the_server_closes_it() {
    let authority = Authority::new();
    let delay = Arc::new(Mutex::new(Duration::ZERO));
    let tls = authority.server("127.0.0.1");
    let (port, open) = serve_late(tls, Arc::clone(&delay), 200, "ok").await;
    let (mut prober, _folder) = trusting(&authority, port);
    asker(&mut prober).settings.keep_open = true;
    assert!(prober.probe(LOCALHOST.into()).await.rtt.is_some());
    for _ in 0..3 {
        let found = prober.probe_again(LOCALHOST.into()).await;
        assert_eq!(
            (found.probe, found.rtt, found.failure),
            (Probe::Ready, None, None)
        );
    }
    assert_eq!(open.load(std::sync::atomic::Ordering::Relaxed), 1);
    // It hangs: the connection is given up, and the next probe makes a new one.
    *delay.lock().unwrap() = Duration::from_secs(60);
    let reason = hung(prober.probe_again(LOCALHOST.into()).await);
    assert_eq!(reason, "timed out after 200ms");
    *delay.lock().unwrap() = Duration::ZERO;
    let found = prober.probe_again(LOCALHOST.into()).await;
    assert!(
        found.probe == Probe::Ready && found.rtt.is_some(),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_tls_is_not_ready() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.writable().await.unwrap();
        tcp.try_write(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
        // Open until the client hangs up: a reset could overtake the answer.
        tcp.readable().await.unwrap();
        std::future::pending::<()>().await;
    });
    let prober = prober(port, TIMEOUT, Trust::Insecure);
    let reason = reason(prober.probe(LOCALHOST.into()).await);
    assert!(reason.starts_with("TLS: "), "{reason}");
}

#[test]
fn a_node_that_nothing_leads_to_or_that_says_nothing_is_silent() {
    use crate::net::testing::{Side, VIP, in_two_namespaces, ip};
    in_two_namespaces(async |pair| {
        pair.enter(Side::A);
        let result = prober(6443, TIMEOUT, Trust::Insecure)
            .probe(IpAddr::from([192, 0, 2, 1]))
            .await;
        let (Probe::Silent(reason), Some(Failure::Unreachable)) = failure(result.clone()) else {
            panic!("expected Silent, got {result:?}");
        };
        assert!(reason.contains("unreachable"), "{reason}");

        // Frames leave, and nobody takes them.
        ip(&format!(
            "neighbour add {VIP} lladdr 02:00:00:00:00:99 dev a0"
        ));
        let timeout = Duration::from_millis(300);
        let result = prober(6443, timeout, Trust::Insecure)
            .probe(VIP.into())
            .await;
        let reason = "no answer within 300ms".to_owned();
        let wanted = (Probe::Silent(reason), Some(Failure::ConnectTimeout));
        assert_eq!(failure(result), wanted);
    });
}

#[tokio::test]
async fn tls_alone_and_connections_alone_say_that_a_server_serves() {
    let authority = Authority::new();
    let port = serve(authority.server("127.0.0.1"), 500, "").await;
    for (ask, text) in [(Ask::Tls, "serves TLS"), (Ask::Tcp, "takes connections")] {
        let (mut prober, _folder) = trusting(&authority, port);
        asker(&mut prober).settings.ask = ask;
        assert_eq!(unknown(prober.probe(LOCALHOST.into()).await), text);
    }
    let (mut stranger, _folder) = trusting(&Authority::new(), port);
    asker(&mut stranger).settings.ask = Ask::Tls;
    let reason = reason(stranger.probe(LOCALHOST.into()).await);
    assert!(reason.starts_with("TLS: "), "{reason}");
}

/// A server that answers 200 to those who say who they are, and 401 to others.
async fn serve_known(tls: Arc<ServerConfig>, token: Option<&'static str>) -> u16 {
    serve_by(tls, "", move |request, certified| {
        let sent = request.headers().get(AUTHORIZATION);
        let known = match token {
            Some(token) => sent.is_some_and(|sent| sent == format!("Bearer {token}").as_str()),
            None => sent.is_none() && certified,
        };
        if known { 200 } else { 401 }
    })
    .await
}

#[tokio::test]
async fn a_token_is_shown_follows_its_file_and_outlives_a_broken_one() {
    let authority = Authority::new();
    let port = serve_known(authority.server("127.0.0.1"), Some("s3cr3t")).await;
    let (mut prober, folder) = trusting(&authority, port);
    let file = folder.path().join("token");
    asker(&mut prober).store = Some(Store::new(Credentials::Token(file.clone())));
    let result = prober.probe(LOCALHOST.into()).await;
    assert_eq!(unknown(result), "401 Unauthorized without credentials");
    let news = prober.news().unwrap().unwrap_err();
    assert!(
        news.starts_with(&format!("token file {}: ", file.display())),
        "{news}"
    );
    assert!(news.ends_with("servers are asked without"), "{news}");
    assert_eq!(prober.news(), None, "said once");

    std::fs::write(&file, "wrong\n").unwrap();
    let result = prober.probe(LOCALHOST.into()).await;
    let text = format!("401 Unauthorized with the token in {}", file.display());
    assert_eq!(unknown(result), text);
    assert_eq!(prober.news(), Some(Ok(())));

    std::fs::write(&file, "  s3cr3t\n").unwrap();
    let ready = async |prober: &Prober| {
        let result = prober.probe(LOCALHOST.into()).await;
        assert!(
            result.probe == Probe::Ready && result.rtt.is_some(),
            "{result:?}"
        );
    };
    ready(&prober).await;
    for broken in ["", "two words", "\u{7}"] {
        std::fs::write(&file, broken).unwrap();
        ready(&prober).await;
        let news = prober.news().unwrap().unwrap_err();
        assert!(news.ends_with("those read before are used"), "{news}");
    }
    let text = format!("{prober:?}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_rotates() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(clients.pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let port = serve_known(Arc::new(config), None).await;
    let (mut prober, folder) = trusting(&authority, port);
    let result = prober.probe(LOCALHOST.into()).await;
    assert_eq!(unknown(result), "401 Unauthorized without credentials");

    let files = ["vip.crt", "vip.key"].map(|name| folder.path().join(name));
    let [certificate, key] = files.clone();
    asker(&mut prober).store = Some(Store::new(Credentials::Certificate { certificate, key }));
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &clients.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    for name in ["a", "another"] {
        let (certificate, key) = issue(name);
        std::fs::write(&files[0], &certificate).unwrap();
        std::fs::write(&files[1], &key).unwrap();
        let result = prober.probe(LOCALHOST.into()).await;
        assert!(
            result.probe == Probe::Ready && result.rtt.is_some(),
            "{result:?}"
        );
        assert_eq!(prober.news(), Some(Ok(())));
    }
    // A key that does not fit is named, and not quoted.
    let (_, other) = issue("a-third-one");
    std::fs::write(&files[1], &other).unwrap();
    let result = prober.probe(LOCALHOST.into()).await;
    assert!(
        result.probe == Probe::Ready && result.rtt.is_some(),
        "{result:?}"
    );
    let news = prober.news().unwrap().unwrap_err();
    assert!(news.contains("vip.key: does not fit"), "{news}");
    std::fs::write(&files[1], "-----BEGIN SECRET").unwrap();
    prober.probe(LOCALHOST.into()).await;
    let news = prober.news().unwrap().unwrap_err();
    assert!(
        news.contains("has no private key") && !news.contains("SECRET"),
        "{news}"
    );
}
