//! The real kubectl against the real server: TLS, client certificate and kubeconfig on a loopback port.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use portolan_apiserver::pki::{Identity, Pki};
use portolan_apiserver::{ApiServer, Config, serve, tls};
use portolan_store::embedded::Embedded;
use tokio::net::TcpListener;
use tokio::process::Command;

/// A server behind TLS and a kubeconfig for it.
struct Cluster {
    dir: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Config::new("192.0.2.1".parse().unwrap(), port);
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let addresses = [config.first_service_address().unwrap()];
        let tls = tls::server_config(&pki.server(&[], &addresses).unwrap(), pki.ca_pem()).unwrap();
        let url = format!("https://127.0.0.1:{port}");
        pki.write_kubeconfig(&dir.path().join("kubeconfig"), &url, &Identity::admin()).unwrap();
        pki.write_kubeconfig(&dir.path().join("proxy"), &url, &Identity::proxy()).unwrap();
        let store = Arc::new(Embedded::open(dir.path().join("store")).unwrap());
        let server = ApiServer::start(config, store).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let done = tokio::spawn(serve(server, listener, tls, async { drop(stopped.await) }));
        Self { dir, stop: Some(stop), done }
    }

    fn command(&self, kubeconfig: &str, args: &[&str]) -> Command {
        self.command_of("kubectl".as_ref(), kubeconfig, args)
    }

    fn command_of(&self, program: &Path, kubeconfig: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.dir.path().join(kubeconfig))
            .kill_on_drop(true);
        command
    }

    async fn output(&self, args: &[&str]) -> Output {
        self.command("kubeconfig", args).output().await.expect("kubectl is installed")
    }

    /// Standard output of a command that must succeed.
    async fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {}: {err}{out}", args.join(" "));
        out
    }

    /// Standard error of a command that must fail.
    async fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(!output.status.success(), "kubectl {}: {}", args.join(" "), text(&output.stdout));
        text(&output.stderr)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn script(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.done.await.unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const WEB: &str = "apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: NodePort
  selector:
    role: web
  ports:
  - name: http
    port: 80
    targetPort: 8080
    nodePort: 32001
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_does_its_daily_work() {
    let cluster = Cluster::start().await;
    let version = cluster.ok(&["version"]).await;
    assert!(version.contains("v1.36.0+portolan"), "{version}");

    let web = cluster.file("web.yaml", WEB);
    assert_eq!(cluster.ok(&["apply", "-f", &web]).await, "service/web created\n");
    assert_eq!(cluster.ok(&["apply", "-f", &web]).await, "service/web unchanged\n");
    let changed = cluster.file("changed.yaml", &WEB.replace("targetPort: 8080", "targetPort: 9090"));
    assert_eq!(cluster.ok(&["apply", "-f", &changed]).await, "service/web configured\n");
    let diff = cluster.output(&["diff", "-f", &web]).await;
    assert_eq!(diff.status.code(), Some(1), "{}", text(&diff.stderr));

    let table = cluster.ok(&["get", "services"]).await;
    let mut lines = table.lines();
    let words = |line: Option<&str>| line.unwrap().split_whitespace().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(words(lines.next()), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(words(lines.next())[..5], ["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]);
    assert_eq!(words(lines.next())[4], "80:32001/TCP");
    let wide = cluster.ok(&["get", "svc", "web", "-o", "wide"]).await;
    assert!(wide.contains("SELECTOR") && wide.contains("role=web"), "{wide}");
    let yaml = cluster.ok(&["get", "svc/web", "-o", "yaml"]).await;
    assert!(yaml.contains("targetPort: 9090"), "{yaml}");
    let port = cluster.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]).await;
    assert_eq!(port, "32001");

    cluster.ok(&["label", "service", "web", "tier=front"]).await;
    cluster.ok(&["annotate", "service", "web", "note=hello"]).await;
    let found = cluster.ok(&["get", "svc", "-l", "tier=front", "-o", "name"]).await;
    assert_eq!(found, "service/web\n");
    let described = cluster.ok(&["describe", "service", "web"]).await;
    for word in ["Selector:", "role=web", "32001/TCP", "tier=front", "note: hello"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    cluster.ok(&["expose", "service", "web", "--name=inner", "--port=81", "--target-port=8080"]).await;
    assert!(cluster.ok(&["get", "all"]).await.contains("service/inner"));
    cluster.ok(&["patch", "svc", "inner", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]).await;
    let timeout = "jsonpath={.spec.sessionAffinityConfig.clientIP.timeoutSeconds}";
    assert_eq!(cluster.ok(&["get", "svc", "inner", "-o", timeout]).await, "10800");

    cluster.ok(&["create", "namespace", "shop"]).await;
    cluster.ok(&["create", "configmap", "settings", "--from-literal=a=b", "-n", "shop"]).await;
    assert!(cluster.ok(&["get", "cm", "-A"]).await.contains("settings"));
    cluster.ok(&["create", "service", "clusterip", "plain", "--tcp=80:8080", "-n", "shop"]).await;
    cluster.ok(&["create", "secret", "generic", "word", "--from-literal=a=b", "-n", "shop"]).await;
    let word = cluster.ok(&["get", "secret", "word", "-n", "shop", "-o", "jsonpath={.data.a}"]).await;
    assert_eq!(word, "Yg==");
    cluster.ok(&["delete", "namespace", "shop", "--timeout=30s"]).await;

    let deleted = cluster.ok(&["delete", "service", "web", "inner"]).await;
    assert_eq!(deleted.lines().count(), 2, "{deleted}");
    assert!(cluster.fails(&["get", "svc", "web"]).await.contains("services \"web\" not found"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_edits_watches_and_explains() {
    let cluster = Cluster::start().await;
    let web = cluster.file("web.yaml", WEB);
    cluster.ok(&["create", "-f", &web]).await;

    let editor =
        cluster.script("editor", "#!/bin/sh\nsed -i 's/targetPort: 8080/targetPort: 7070/' \"$1\"\n");
    let output = cluster
        .command("kubeconfig", &["edit", "service", "web"])
        .env("EDITOR", editor)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "service/web edited\n");
    let target = cluster.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}"]).await;
    assert_eq!(target, "7070");

    let resources = cluster.ok(&["api-resources", "--no-headers"]).await;
    for line in ["services", "endpointslices", "pods", "nodes", "namespaces", "leases", "servicecidrs"] {
        assert!(resources.lines().any(|l| l.starts_with(line)), "{line}: {resources}");
    }
    let explained = cluster.ok(&["explain", "service.spec.sessionAffinity"]).await;
    assert!(explained.contains("FIELD: sessionAffinity <string>"), "{explained}");

    watches(&cluster).await;

    let output = cluster.command("proxy", &["get", "secrets"]).output().await.unwrap();
    let refused = text(&output.stderr);
    assert!(
        refused.contains(
            "secrets is forbidden: User \"system:kube-proxy\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
        ),
        "{refused}"
    );
    cluster.stop().await;
}

/// `get -w` sees a change and a deletion.
async fn watches(cluster: &Cluster) {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let mut child = cluster
        .command("kubeconfig", &["get", "svc", "web", "-w", "--output-watch-events"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line =
            tokio::time::timeout(crate::common::PATIENCE, lines.next_line()).await.expect("a line in time");
        line.unwrap().expect("a line")
    };
    assert!(next().await.starts_with("EVENT"));
    assert!(next().await.starts_with("ADDED"));
    cluster.ok(&["label", "svc", "web", "seen=yes"]).await;
    assert!(next().await.starts_with("MODIFIED"));
    cluster.ok(&["delete", "svc", "web"]).await;
    assert!(next().await.starts_with("DELETED"));
    child.kill().await.unwrap();
}

/// The founding manifests with a slip, as people paste them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_what_is_wrong_with_a_manifest() {
    let cluster = Cluster::start().await;
    let manifest = |extra: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: session-svc\nspec:\n  type: NodePort\n  selector:\n    role: web\n  ports:\n  - name: http\n    protocol: TCP\n    port: 80\n    targetPort: 80\n{extra}"
        )
    };
    let affinity =
        "  sessionAffinity: ClientIp\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: 60\n";
    for extra in [affinity.to_string(), format!("  externalTrafficPolicy: Local\n{affinity}")] {
        let file = cluster.file("slip.yaml", &manifest(&extra));
        let error = cluster.fails(&["apply", "-f", &file]).await;
        for word in [
            "spec.sessionAffinity: Unsupported value: \"ClientIp\"",
            "\"ClientIP\", \"None\"",
            "did you mean",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
        let mended = cluster.file("mended.yaml", &manifest(&extra.replace("ClientIp", "ClientIP")));
        cluster.ok(&["apply", "-f", &mended]).await;
        cluster.ok(&["delete", "-f", &mended]).await;
    }
    let file = cluster.file("unknown.yaml", &manifest("  pubishNotReadyAddresses: true\n"));
    let error = cluster.fails(&["apply", "-f", &file]).await;
    for word in ["unknown field \"spec.pubishNotReadyAddresses\"", "publishNotReadyAddresses"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let output = cluster.output(&["apply", "--validate=warn", "-f", &file]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Warning: unknown field \"spec.pubishNotReadyAddresses\""));
    let error =
        cluster.fails(&["apply", "-f", &cluster.file("kind.yaml", "apiVersion: v1\nkind: Servce\n")]).await;
    assert!(error.contains("no matches for kind \"Servce\""), "{error}");
    cluster.stop().await;
}

/// An older kubectl speaks older forms of discovery, tables and validation. `PORTOLAN_TEST_KUBECTL` names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_kubectl_works_too() {
    let Some(old) = std::env::var_os("PORTOLAN_TEST_KUBECTL").map(PathBuf::from) else { return };
    let cluster = Cluster::start().await;
    let web = cluster.file("web.yaml", WEB);
    for (args, wanted) in [
        (&["apply", "-f", &web][..], "service/web created"),
        (&["apply", "-f", &web], "service/web unchanged"),
        (&["get", "svc", "-o", "wide"], "role=web"),
        (&["label", "svc", "web", "a=b"], "service/web labeled"),
        (&["describe", "svc", "web"], "32001/TCP"),
        (&["api-resources"], "endpointslices"),
        (&["explain", "service.spec.ports"], "nodePort"),
        (&["delete", "-f", &web], "service \"web\" deleted"),
    ] {
        let output = cluster.command_of(&old, "kubeconfig", args).output().await.unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains(wanted), "{}: {err}{out}", args.join(" "));
    }
    let slip = WEB.replace("type: NodePort", "tpye: NodePort");
    let args = ["apply", "-f", &cluster.file("slip.yaml", &slip)];
    let error = text(&cluster.command_of(&old, "kubeconfig", &args).output().await.unwrap().stderr);
    assert!(error.contains("unknown field") && error.contains("tpye"), "{error}");
    cluster.stop().await;
}

#[tokio::test]
async fn apply_on_the_server_edit_and_last_applied() {
    let cluster = Cluster::start().await;
    let manifest = |kind: &str, port: u16| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  type: {kind}\n  selector: {{app: web}}\n  ports:\n  - name: p{port}\n    port: {port}\n"
        );
        cluster.file("service.yaml", &text)
    };
    let file = manifest("ClusterIP", 80);
    assert_eq!(
        cluster.ok(&["apply", "--server-side", "-f", &file]).await.trim(),
        "service/web serverside-applied"
    );
    let patch = r#"{"spec":{"type":"NodePort"}}"#;
    cluster.ok(&["patch", "service", "web", "-p", patch, "--field-manager", "somebody"]).await;
    let refused = cluster.fails(&["apply", "--server-side", "-f", &file]).await;
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"somebody\" using v1: .spec.type"),
        "{refused}"
    );
    cluster.ok(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await;
    assert_eq!(cluster.ok(&["get", "service", "web", "-o", "jsonpath={.spec.type}"]).await, "ClusterIP");
    let shown = cluster.ok(&["get", "service", "web", "-o", "yaml", "--show-managed-fields"]).await;
    assert!(shown.contains("manager: kubectl\n    operation: Apply"), "{shown}");
    assert!(!cluster.ok(&["get", "service", "web", "-o", "yaml"]).await.contains("managedFields"));
    cluster.ok(&["delete", "service", "web"]).await;

    // From the client's apply to the server's: kubectl hands its fields over.
    cluster.ok(&["apply", "-f", &file]).await;
    let last = cluster.ok(&["apply", "view-last-applied", "service", "web"]).await;
    assert!(last.contains("type: ClusterIP"), "{last}");
    let file = manifest("NodePort", 81);
    cluster.ok(&["apply", "--server-side", "-f", &file]).await;
    assert_eq!(cluster.ok(&["get", "service", "web", "-o", "jsonpath={.spec.ports[*].port}"]).await, "81");
    let last = cluster.ok(&["apply", "view-last-applied", "service", "web"]).await;
    assert!(last.contains("type: NodePort"), "{last}");
    let diff = cluster.ok(&["diff", "--server-side", "-f", &file]).await;
    assert_eq!(diff, "");
    assert_eq!(cluster.ok(&["apply", "-f", &file]).await.trim(), "service/web configured");
    assert_eq!(cluster.ok(&["apply", "-f", &file]).await.trim(), "service/web unchanged");
}
