use super::*;

/// A directory with a certificate, its key and a kubeconfig made from a template.
struct Fixture {
    dir: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Fixture {
    fn new() -> Fixture {
        let pair = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cert.pem"), &certificate).unwrap();
        std::fs::write(dir.path().join("key.pem"), &key).unwrap();
        Fixture { dir, certificate, key }
    }

    fn read(&self, cluster: &str, user: &str) -> Result<Config, String> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: main\n\
             contexts:\n- name: main\n  context: {{cluster: c, user: u, namespace: shop}}\n\
             - name: bare\n  context: {{cluster: c}}\n- name: lost\n  context: {{cluster: x, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
        );
        self.parse(&text, None)
    }

    fn parse(&self, text: &str, context: Option<&str>) -> Result<Config, String> {
        let path = self.dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        Config::from_kubeconfig(&path, context).map_err(|e| e.to_string())
    }

    fn error(&self, cluster: &str, user: &str) -> String {
        let error = self.read(cluster, user).unwrap_err();
        assert!(error.contains(&self.dir.path().join("config").display().to_string()), "{error}");
        error
    }
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn inline_material_and_files_give_the_same() {
    let f = Fixture::new();
    let inline = f.read(
        &format!("server: 'https://h:6443', certificate-authority-data: {}", base64(&f.certificate)),
        &format!("client-certificate-data: {}, client-key-data: {}", base64(&f.certificate), base64(&f.key)),
    );
    let files = f.read(
        "server: 'https://h:6443', certificate-authority: cert.pem",
        "client-certificate: cert.pem, client-key: key.pem",
    );
    let inline = inline.unwrap();
    assert_eq!(inline, files.unwrap());
    assert_eq!((inline.server.as_str(), inline.namespace.as_str()), ("https://h:6443", "shop"));
    assert_eq!(inline.client_key.unwrap(), f.key.into_bytes());
}

#[test]
fn tokens_names_and_switches_are_read() {
    let f = Fixture::new();
    let config = f
        .read(
            "server: 'https://h', insecure-skip-tls-verify: true, tls-server-name: other",
            "token: abc, tokenFile: sub/token",
        )
        .unwrap();
    assert!(config.insecure_skip_tls_verify);
    assert_eq!(config.tls_server_name.as_deref(), Some("other"));
    assert_eq!(config.token.as_deref(), Some("abc"));
    assert_eq!(config.token_file, Some(f.dir.path().join("sub/token")));
    let debug = format!("{config:?}");
    assert!(!debug.contains("abc"), "{debug}");
}

#[test]
fn errors_name_the_file_and_the_field() {
    let f = Fixture::new();
    let server = "server: 'https://h'";
    let cases = [
        (f.error("", ""), "clusters[c].cluster.server is not set"),
        (
            f.error(&format!("{server}, certificate-authority-data: '%%'"), ""),
            "clusters[c].cluster.certificate-authority-data is not base64",
        ),
        (
            f.error(&format!("{server}, certificate-authority-data: {}", base64("no pem")), ""),
            "clusters[c].cluster.certificate-authority-data has no PEM certificate",
        ),
        (f.error(server, "client-certificate: gone.pem"), "users[u].user.client-certificate cannot read"),
        (f.error(server, "client-certificate: cert.pem"), "client-certificate is set but client-key is not"),
        (
            f.error(server, "client-certificate: cert.pem, client-key: cert.pem"),
            "users[u].user.client-key is not a PEM private key",
        ),
        (f.error(server, "exec: {command: x}"), "users[u].user.exec is not supported"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "{error}\nshould contain {expected}");
    }
}

#[test]
fn contexts_are_resolved() {
    let f = Fixture::new();
    let text = "current-context: gone\ncontexts:\n- {name: bare, context: {cluster: c}}\n\
                - {name: lost, context: {cluster: x, user: u}}\n- {name: nobody, context: {cluster: c, user: u}}\n\
                clusters:\n- {name: c, cluster: {server: 'https://h'}}\n";
    let bare = f.parse(text, Some("bare")).unwrap();
    assert_eq!((bare.namespace.as_str(), bare.token), ("default", None));
    let error = |context| f.parse(text, context).unwrap_err();
    assert!(error(None).contains("contexts has no \"gone\""));
    assert!(error(Some("lost")).contains("contexts[lost].context.cluster names no cluster: \"x\""));
    assert!(error(Some("nobody")).contains("contexts[nobody].context.user names no user: \"u\""));
    assert!(f.parse("{}", None).unwrap_err().contains("current-context is not set"));
    assert!(f.parse("contexts: 5", None).unwrap_err().contains("config"));
    let missing = Config::from_kubeconfig(Path::new("/nonexistent/k"), None).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read kubeconfig /nonexistent/k"));
}

#[test]
fn a_pod_finds_its_service_account() {
    let f = Fixture::new();
    let dir = f.dir.path();
    std::fs::write(dir.join("ca.crt"), &f.certificate).unwrap();
    let error = Config::in_pod("10.0.0.1", "443", dir).unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
    std::fs::write(dir.join("token"), "t").unwrap();
    std::fs::write(dir.join("namespace"), "kube-system\n").unwrap();
    let config = Config::in_pod("fd00::1", "443", dir).unwrap();
    assert_eq!((config.server.as_str(), config.namespace.as_str()), ("https://[fd00::1]:443", "kube-system"));
    assert_eq!(config.token_file, Some(dir.join("token")));
}
