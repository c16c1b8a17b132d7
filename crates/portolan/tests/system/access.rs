//! Who may do what, with the real kubectl on running clusters: people, service accounts, nodes; and what is kept of secrets.

use std::path::{Path, PathBuf};
use std::process::Command;

use portolan_lab::Host;

use crate::bed::{Bed, exe, web_pod};
use crate::up_alone::Alone;

/// Access as somebody, issued by the control plane's authority.
fn kubeconfig(data_dir: &Path, out: &Path, user: &str, groups: &[&str]) -> PathBuf {
    let path = out.join(user.replace(':', "-"));
    let mut command = Command::new(exe());
    command.arg("kubeconfig").arg("--data-dir").arg(data_dir).args(["--user", user]);
    for group in groups {
        command.args(["--group", group]);
    }
    let output = command.arg("--output").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// What kubectl says under another kubeconfig: whether it went well, and both of its outputs.
fn kubectl(alone: &Alone, kubeconfig: &Path, args: &[&str]) -> (bool, String) {
    let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap()];
    all.extend(args);
    said(&alone.kubectl_output(&all, ""))
}

fn said(output: &std::process::Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A token as kubectl asks for one; those of Debian cannot, and send the request as it is.
fn service_account_token(alone: &Alone, account: &str) -> String {
    let output = alone.kubectl_output(&["create", "token", account, "--duration=1h"], "");
    if output.status.success() {
        return String::from_utf8(output.stdout).unwrap();
    }
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let request = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":3600}}"#;
    let answer = alone.kubectl(&["create", "--raw", &path, "-f", "-"], request);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// A kubeconfig with a token alone: beside it, the administrator's certificate would come first.
fn token_config(alone: &Alone, out: &Path, token: &str) -> PathBuf {
    let whole = std::fs::read_to_string(alone.data_dir().join("kubeconfig")).unwrap();
    let (head, _) = whole.split_once("    client-certificate-data:").unwrap();
    let (_, tail) = whole.split_once("contexts:").unwrap();
    let path = out.join("token.kubeconfig");
    std::fs::write(&path, format!("{head}    token: {token}\ncontexts:{tail}")).unwrap();
    path
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn people_do_what_roles_grant_them_and_are_told_what_not() {
    let mut alone = Alone::new();
    alone.up();
    let (data, out) = (alone.data_dir(), tempfile::tempdir().unwrap());
    let jane = kubeconfig(&data, out.path(), "jane", &["dev", "ops", "qa"]);
    let ask = |args: &[&str]| kubectl(&alone, &jane, args);
    let (ok, text) = ask(&["get", "pods"]);
    let refused = "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API \
                   group \"\" in the namespace \"default\"\n";
    assert_eq!((ok, text.as_str()), (false, refused));
    assert_eq!(ask(&["auth", "can-i", "list", "pods"]), (false, "no\n".into()));
    // Every group of the certificate counts, not only the first.
    alone.kubectl(&["create", "rolebinding", "look", "--clusterrole=view", "--group=qa"], "");
    assert_eq!(ask(&["auth", "can-i", "list", "pods"]), (true, "yes\n".into()));
    assert_eq!(ask(&["auth", "can-i", "list", "pods", "-A"]), (false, "no\n".into()));
    assert!(ask(&["get", "pods"]).0);
    let (_, list) = ask(&["auth", "can-i", "--list"]);
    assert!(
        list.contains("selfsubjectaccessreviews.authorization.k8s.io") && list.contains("endpoints"),
        "{list}"
    );
    // A role by kubectl's own means, for one object.
    let args = ["create", "role", "one", "--verb=get,update", "--resource=configmaps", "--resource-name=a"];
    alone.kubectl(&args, "");
    alone.kubectl(&["create", "rolebinding", "one", "--role=one", "--user=jane"], "");
    assert_eq!(ask(&["auth", "can-i", "update", "configmaps/a"]).1, "yes\n");
    assert_eq!(ask(&["auth", "can-i", "update", "configmaps/b"]).1, "no\n");
    // As somebody else, for those who may.
    let (_, text) = said(
        &alone.kubectl_output(&["auth", "can-i", "list", "pods", "--as", "bob", "--as-group", "qa"], ""),
    );
    assert_eq!(text, "yes\n");
    let (ok, text) = ask(&["get", "pods", "--as", "bob"]);
    assert!(!ok && text.contains("User \"jane\" cannot impersonate resource \"users\""), "{text}");
    // Nobody gives what they have not.
    alone.kubectl(&["create", "rolebinding", "run", "--clusterrole=admin", "--user=jane"], "");
    let (ok, text) = ask(&["create", "role", "more", "--verb=get", "--resource=nodes"]);
    assert!(!ok && text.contains("is attempting to grant RBAC permissions not currently held"), "{text}");
    assert!(ask(&["create", "role", "less", "--verb=get", "--resource=pods"]).0);
    alone.stop();
}

#[test]
fn roles_are_reconciled_by_kubectl_and_those_of_the_cluster_at_start() {
    let mut alone = Alone::new();
    alone.up();
    let manifest = r#"---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list]}
"#;
    let text = alone.kubectl(&["auth", "reconcile", "-f", "-"], manifest);
    assert!(text.contains("clusterrole.rbac.authorization.k8s.io/reader reconciled"), "{text}");
    let rules = |alone: &Alone, role: &str| {
        alone.kubectl(&["get", "clusterrole", role, "-o", "jsonpath={.rules}"], "")
    };
    let before = rules(&alone, "system:node-proxier");
    assert!(before.contains("endpointslices"), "{before}");
    for (role, keep) in [("system:node-proxier", false), ("system:kube-dns", true)] {
        if keep {
            let annotate = [
                "annotate",
                "--overwrite",
                "clusterrole",
                role,
                "rbac.authorization.kubernetes.io/autoupdate=false",
            ];
            alone.kubectl(&annotate, "");
        }
        alone.kubectl(&["patch", "clusterrole", role, "--type=merge", "-p", r#"{"rules":[]}"#], "");
    }
    alone.stop();
    alone.up();
    assert!(rules(&alone, "system:node-proxier").contains("endpointslices"));
    assert!(
        !rules(&alone, "system:kube-dns").contains("endpointslices"),
        "the administrator keeps it as it is"
    );
    alone.stop();
}

#[test]
fn a_service_account_has_a_token_that_ends_with_it() {
    let mut alone = Alone::new();
    alone.up();
    alone.kubectl(&["create", "serviceaccount", "robot"], "");
    alone.kubectl(
        &["create", "rolebinding", "robot", "--clusterrole=view", "--serviceaccount=default:robot"],
        "",
    );
    let token = service_account_token(&alone, "robot");
    let token = token.trim();
    let out = tempfile::tempdir().unwrap();
    let write = |token: &str| token_config(&alone, out.path(), token);
    let robot = write(token);
    assert!(kubectl(&alone, &robot, &["get", "services"]).0);
    let (ok, text) = kubectl(&alone, &robot, &["delete", "service", "kubernetes"]);
    assert!(!ok && text.contains("User \"system:serviceaccount:default:robot\" cannot delete"), "{text}");
    let cut = &token[..token.len() - 4];
    let (ok, text) = kubectl(&alone, &write(cut), &["get", "services"]);
    assert!(!ok && text.contains("Unauthorized"), "{text}");
    alone.kubectl(&["delete", "serviceaccount", "robot"], "");
    let (ok, text) = kubectl(&alone, &write(token), &["get", "services"]);
    assert!(!ok && text.contains("Unauthorized"), "{text}");
    alone.stop();
}

#[test]
fn a_node_may_not_touch_what_is_another_nodes() {
    let bed = Bed::up(2);
    bed.apply(&(web_pod("one", "app: web", Some("node-1")) + &web_pod("two", "app: web", Some("node-2"))));
    bed.wait_ready("app=web");
    let config = bed.lab.layout.data_dir(Host::Node(1)).join("kubeconfig");
    let as_node = |args: &[&str]| {
        let mut all = vec!["--kubeconfig", config.to_str().unwrap()];
        all.extend(args);
        bed.kubectl().run(&all).map_err(|error| error.to_string())
    };
    as_node(&["get", "pod", "one"]).unwrap();
    as_node(&["get", "lease", "-n", "kube-node-lease", "node-1"]).unwrap();
    let refused = |args: &[&str], why: &str| {
        let text = as_node(args).unwrap_err();
        assert!(text.contains("orbidden") && text.contains(why), "{args:?}: {text}");
    };
    refused(&["get", "pod", "two"], "no relationship found between node 'node-1' and this object");
    refused(&["get", "pods"], "can only list/watch pods with spec.nodeName field selector");
    refused(&["delete", "pod", "two"], "can only delete pods with spec.nodeName set to itself");
    // kubectl reads before it patches: what it would send then is sent here, by the node's own certificate.
    let client = portolan_client::Client::from_kubeconfig(&config, "test").unwrap();
    let patch = serde_json::json!({ "status": { "phase": "Failed" } });
    let write = async {
        let patch = portolan_client::Patch::Merge(&patch);
        let status = portolan_client::Subresource::Status;
        let pods = &portolan_client::paths::PODS;
        client.patch::<serde_json::Value>(pods, Some("default"), "two", status, patch).await
    };
    let netns = bed.lab.host(Host::Node(1)).unwrap();
    let error = netns.run(|| runtime().block_on(write)).unwrap().unwrap_err().to_string();
    assert!(
        error.contains("can only update pod status for pods with spec.nodeName set to itself"),
        "{error}"
    );
    refused(
        &["get", "lease", "-n", "kube-node-lease", "node-2"],
        "can only access node lease with the same name as the requesting node",
    );
    refused(&["label", "node", "node-2", "a=b"], "is not allowed to modify node \"node-2\"");
    refused(&["get", "secrets", "-A"], "");
    refused(&["create", "configmap", "x"], "");
}

#[test]
fn a_container_finds_a_token_with_which_the_api_knows_it() {
    let mut alone = Alone::new();
    alone.up();
    // It copies what it finds to where the test can read it: containers share the node's files but for what is mounted.
    let out = alone.data_dir().join("found");
    std::fs::create_dir_all(&out).unwrap();
    let manifest = format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: curious}}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: portolan.dev/host
    command: [sh, -c, "cp /var/run/secrets/kubernetes.io/serviceaccount/* {out}/ && echo $KUBERNETES_SERVICE_HOST > {out}/host && sleep 600"]
"#,
        out = out.display()
    );
    alone.kubectl(&["apply", "-f", "-"], &manifest);
    alone.kubectl(&["wait", "--for=condition=Ready", "pod", "curious", "--timeout=30s"], "");
    let begin = std::time::Instant::now();
    while !out.join("host").exists() {
        assert!(begin.elapsed() < crate::bed::PATIENCE, "{:?}", std::fs::read_dir(&out).unwrap().count());
    }
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("namespace"), "default");
    assert!(read("ca.crt").starts_with("-----BEGIN CERTIFICATE"));
    let token = read("token");
    let config = token_config(&alone, out.as_path(), token.trim());
    let (_, text) = kubectl(&alone, &config, &["get", "pods"]);
    assert!(text.contains("User \"system:serviceaccount:default:default\" cannot list"), "{text}");
    assert_eq!(
        kubectl(&alone, &config, &["auth", "can-i", "create", "selfsubjectaccessreviews"])
            .1
            .trim()
            .lines()
            .next(),
        Some("yes")
    );
    // The token is the pod's, and ends with it.
    alone.kubectl(&["delete", "pod", "curious", "--grace-period=0", "--force"], "");
    let (ok, text) = kubectl(&alone, &config, &["get", "pods"]);
    assert!(!ok && text.contains("Unauthorized"), "{text}");
    let visible = Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token");
    assert!(!visible.exists(), "the node itself sees an empty directory");
    alone.stop();
}

#[test]
fn a_secret_is_nowhere_in_the_data_directory() {
    let mut alone = Alone::new();
    alone.up();
    // Neither as text nor in base64, which is how the API writes it.
    let (word, coded) = ("open-sesame-4711-once", "b3Blbi1zZXNhbWUtNDcxMS1vbmNl");
    let args = ["create", "secret", "generic", "door"];
    alone.kubectl(&[&args[..], &[&format!("--from-literal=word={word}")]].concat(), "");
    alone.kubectl(&["annotate", "secret", "door", "a=b"], "");
    let read = |alone: &Alone| alone.kubectl(&["get", "secret", "door", "-o", "jsonpath={.data.word}"], "");
    assert_eq!(read(&alone), coded);
    let file = alone.data_dir().join("all.snapshot");
    let save = |alone: &Alone| {
        let mut command = Command::new(exe());
        command.args(["snapshot", "save"]).arg(&file).arg("--data-dir").arg(alone.data_dir());
        assert!(alone.netns().run(|| command.status()).unwrap().unwrap().success());
    };
    save(&alone);
    let holds = |path: &Path, text: &str| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    alone.stop();
    let mut seen = 0;
    let mut todo = vec![alone.data_dir()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            } else if entry.file_type().unwrap().is_file() {
                assert!(!holds(&path, word) && !holds(&path, coded), "{}", path.display());
                seen += usize::from(holds(&path, "k8s:enc:aesgcm:v1:key1:"));
            }
        }
    }
    assert_eq!(seen, 2, "the store and the snapshot hold it, sealed");
    // What was saved can be put back, with the key that is still there.
    let mut command = Command::new(exe());
    command.args(["snapshot", "restore", "--force"]).arg(&file).arg("--data-dir").arg(alone.data_dir());
    assert!(command.status().unwrap().success());
    alone.up();
    assert_eq!(read(&alone), coded);
    alone.stop();
    // Another key before the first: everything is sealed with it, and the first can go.
    let keys = alone.data_dir().join("pki/encryption.yaml");
    let text = std::fs::read_to_string(&keys).unwrap();
    let second = "      - {name: key2, secret: QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=}\n";
    let at = text.find("      - {name: key1").unwrap();
    std::fs::write(&keys, format!("{}{second}{}", &text[..at], &text[at..])).unwrap();
    alone.up();
    assert_eq!(read(&alone), coded);
    alone.stop();
    let end = at + text[at..].find('\n').unwrap() + 1;
    std::fs::write(&keys, format!("{}{second}{}", &text[..at], &text[end..])).unwrap();
    alone.up();
    assert_eq!(read(&alone), coded);
    alone.stop();
    // Without the key it does not start, and says which one is missing.
    std::fs::write(&keys, &text).unwrap();
    let error = alone.fails(alone.command());
    assert!(error.contains("/registry/secrets/default/door") && error.contains("key2"), "{error}");
}

#[test]
fn tokens_of_a_file_name_their_owners() {
    let mut alone = Alone::new();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("tokens.csv");
    std::fs::write(&file, "t0p,ann,1,\"dev,ops\"\nbroken\n").unwrap();
    let mut command = alone.command();
    command.arg("--token-auth-file").arg(&file);
    let error = alone.fails(command);
    assert!(error.contains("line 2") && error.contains("TOKEN,USER,UID"), "{error}");
    std::fs::write(&file, "t0p,ann,1,\"dev,ops\"\n").unwrap();
    alone.up_with(&["--token-auth-file", file.to_str().unwrap()]);
    let url = alone.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"], "");
    let as_token = |token: &str, args: &[&str]| {
        let user = if token.is_empty() { "{}".to_string() } else { format!("{{token: {token}}}") };
        let path = out.path().join("config");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: '{url}', insecure-skip-tls-verify: true}}}}], \
             users: [{{name: u, user: {user}}}]}}"
        );
        std::fs::write(&path, text).unwrap();
        kubectl(&alone, &path, args)
    };
    let (ok, text) = as_token("t0p", &["get", "pods"]);
    assert!(!ok && text.contains("User \"ann\" cannot list"), "{text}");
    let (ok, text) = as_token("other", &["get", "pods"]);
    assert!(!ok && text.contains("Unauthorized"), "{text}");
    // kubectl asks for a name and a password when it has nothing to show: a client without them.
    as_token("", &["version", "--client"]);
    let client = portolan_client::Client::from_kubeconfig(&out.path().join("config"), "test").unwrap();
    let get = |path: &'static str| {
        let client = client.clone();
        alone.netns().run(move || runtime().block_on(async move { client.get_raw(path).await })).unwrap()
    };
    assert!(String::from_utf8_lossy(&get("/version").unwrap()).contains("gitVersion"));
    let error = get("/api/v1/pods").unwrap_err().to_string();
    assert!(error.contains("User \"system:anonymous\" cannot list"), "{error}");
    alone.stop();
}
