//! The story that `make demo` tells: a person who never saw Kubernetes can follow it, and every claim is checked.
//!
//! [`run`] is the story, chapter by chapter; [`story`] prints and keeps count; [`cast`] sends the requests.

mod cast;
mod story;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::error::LabError;
use crate::lab::{Lab, Options};
use crate::layout::Host;
use crate::probe::{self, Answer};
use cast::{Cast, all_of, socket};
use story::Story;

const CLUSTER_IP: &str = "10.96.1.1:80";
const NODE_PORT: u16 = 32001;
const PATIENCE: Duration = Duration::from_secs(20);
const WEB_PODS: [&str; 3] = ["web-1", "web-2", "web-3"];

/// Brings up a lab, tells the story, takes the lab down. Says whether every expectation held.
pub fn run(options: &Options, examples: &Path) -> Result<bool, LabError> {
    let mut story = Story::new();
    story.title("Portolan: from a Service on paper to a packet at a pod");
    let result = tell(&mut story, options, examples);
    Lab::down(&options.name)?;
    result?;
    story.end();
    Ok(story.held())
}

fn tell(story: &mut Story, options: &Options, examples: &Path) -> Result<(), LabError> {
    let lab = bring_up(story, options)?;
    let cast = Cast::new(&lab);
    apply(story, &lab, examples)?;
    let server = start_database(&lab, options)?;
    show(story, &lab)?;
    inside_and_outside(story, &cast)?;
    unready_and_back(story, &lab, &cast)?;
    outside_server(story, &lab, server)?;
    nobody_left(story, &lab, &cast)?;
    mistakes(story, &lab, examples)
}

fn bring_up(story: &mut Story, options: &Options) -> Result<Lab, LabError> {
    story.chapter("A cluster on this machine");
    story.say("Three nodes, a control plane, an outside client and an outside server: each is a network namespace of");
    story.say("its own, joined by one bridge. Nothing outside them is touched. Each node runs an agent, which starts");
    story.say("pods, and a proxy, which programs the kernel.");
    let lab = Lab::up(options)?;
    for (what, took) in &lab.timings {
        story.timing(what, *took);
    }
    Ok(lab)
}

fn apply(story: &mut Story, lab: &Lab, examples: &Path) -> Result<(), LabError> {
    story.chapter("What the user writes");
    story.say("Three identical web servers (pods), and Services in front of them. A Service is one stable address for");
    story.say("pods that come and go. Applied with the real kubectl:");
    for file in ["web-pods.yaml", "01-clusterip.yaml", "02-nodeport.yaml", "04-custom-endpoints.yaml"] {
        story.command(&format!("kubectl apply -f examples/{file}"));
        let path = examples.join(file);
        let manifest = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        story.output(&lab.kubectl().apply(&manifest)?);
    }
    let begin = std::time::Instant::now();
    lab.kubectl().run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s"])?;
    story.timing("all pods ready", begin.elapsed());
    Ok(())
}

fn show(story: &mut Story, lab: &Lab) -> Result<(), LabError> {
    story.chapter("What the system made of it");
    story.say(
        "The API gave every Service an address; the controllers found its ready pods (the Endpoints); every",
    );
    story.say("node's proxy turned both into kernel rules.");
    for what in ["services", "endpoints", "pods"] {
        story.command(&format!("kubectl get {what} -o wide"));
        story.output(&lab.kubectl().run(&["get", what, "-o", "wide"])?);
    }
    Ok(())
}

fn inside_and_outside(story: &mut Story, cast: &Cast<'_>) -> Result<(), LabError> {
    story.chapter("Requests");
    story.say("Thirty requests each. Every request is a new connection, and the kernel of the first node it meets picks");
    story.say(
        "the pod. Inside the cluster the Service's own address works; from outside, the node port does.",
    );
    let cluster_ip = socket(CLUSTER_IP);
    let node_port = |node| SocketAddr::new(Host::Node(node).ip(), NODE_PORT);
    for (from, to, what) in [
        ("shell", cluster_ip, "a pod, to the Service's address"),
        ("web-1", cluster_ip, "a pod of the Service itself"),
        ("node-2", cluster_ip, "a node, to the Service's address"),
        ("client", node_port(1), "outside, to node-1's port"),
        ("client", node_port(3), "outside, to node-3's port"),
        ("shell", node_port(2), "a pod, to node-2's port"),
    ] {
        let tally = cast.ask_many(from, to, 30)?;
        story.row(what, &to.to_string(), &tally.to_string());
        story.expect("every request was answered, and all three pods took part", all_of(&tally, &WEB_PODS));
    }
    let answer = cast.ask("client", cluster_ip)?;
    story.row("outside, to the Service's address", CLUSTER_IP, &cast::describe(&answer));
    story.expect("the Service's own address is for the inside only", !matches!(answer, Answer::Text(_)));
    Ok(())
}

fn unready_and_back(story: &mut Story, lab: &Lab, cast: &Cast<'_>) -> Result<(), LabError> {
    story.chapter("A pod stops being ready, and comes back");
    story.say(
        "Each pod is asked once a second whether it is ready. web-1 will say no. Its address moves from the",
    );
    story.say(
        "Endpoints' addresses to notReadyAddresses, and no request reaches it any more; the others carry on.",
    );
    let cluster_ip = socket(CLUSTER_IP);
    cast.set_ready("web-1", false)?;
    let gone = cast.wait_for_endpoints("demo-svc-clusterip", 2, PATIENCE)?;
    story.timing("until its Endpoints say so (probe included)", gone);
    story.command("kubectl get endpoints demo-svc-clusterip");
    story.output(&lab.kubectl().run(&["get", "endpoints", "demo-svc-clusterip"])?);
    let settled =
        cast.wait_until("shell", cluster_ip, PATIENCE, |tally| all_of(tally, &["web-2", "web-3"]))?;
    story.timing("until only the others answer", settled);
    let tally = cast.ask_many("shell", cluster_ip, 30)?;
    story.row("a pod, to the Service's address", CLUSTER_IP, &tally.to_string());
    story.expect("only the two ready pods answer, and no request fails", all_of(&tally, &["web-2", "web-3"]));
    cast.set_ready("web-1", true)?;
    let back = cast.wait_for_endpoints("demo-svc-clusterip", 3, PATIENCE)?;
    story.timing("until it is back in the Endpoints", back);
    let settled = cast.wait_until("shell", cluster_ip, PATIENCE, |tally| all_of(tally, &WEB_PODS))?;
    story.timing("until it answers again", settled);
    let tally = cast.ask_many("shell", cluster_ip, 30)?;
    story.row("a pod, to the Service's address", CLUSTER_IP, &tally.to_string());
    story.expect("all three answer again", all_of(&tally, &WEB_PODS));
    Ok(())
}

/// What stands for the database in the example: a server outside the cluster that says its name on port 3306.
fn start_database(lab: &Lab, options: &Options) -> Result<Child, LabError> {
    let place = lab.place("server")?;
    let mut command = place.command(&options.exe.to_string_lossy());
    command.args(["echo", "--tcp", "3306"]).env("POD_NAME", "mysql-outside");
    place.spawn(&mut command)
}

fn outside_server(story: &mut Story, lab: &Lab, mut server: Child) -> Result<(), LabError> {
    story.chapter("A Service for a server outside the cluster");
    story.say("mysql-external selects no pods. Its user wrote the Endpoints by hand: 10.0.0.206 port 3306, a machine");
    story.say("that knows nothing of the cluster. Pods reach it by the Service's address, on port 3366.");
    let template = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
    let address = socket(&lab.kubectl().run(&["get", "service", "mysql-external", "-o", template])?);
    let ask = || probe::tcp_line(&lab.place("shell")?.netns, address);
    let (answer, _) = probe::until(ask, |answer| answer.text().is_some(), PATIENCE)?;
    story.row("a pod, to mysql-external", &address.to_string(), &cast::describe(&answer));
    story.expect(
        "the outside server answered",
        answer.text().is_some_and(|text| text.contains("mysql-outside")),
    );
    let _ = server.kill();
    let _ = server.wait();
    Ok(())
}

fn nobody_left(story: &mut Story, lab: &Lab, cast: &Cast<'_>) -> Result<(), LabError> {
    story.chapter("No pod left");
    story.say("All three pods are deleted. A client is told at once that nobody is there; it does not wait in vain.");
    story.command("kubectl delete pod web-1 web-2 web-3");
    let arguments = ["delete", "pod", "web-1", "web-2", "web-3", "--grace-period=1"];
    story.output(&lab.kubectl().run(&arguments)?);
    for (from, to, what) in [
        ("shell", socket(CLUSTER_IP), "a pod, to the Service's address"),
        ("client", SocketAddr::new(Host::Node(1).ip(), NODE_PORT), "outside, to node-1's port"),
    ] {
        let (answer, _) = probe::until(|| cast.ask(from, to), |answer| *answer == Answer::Refused, PATIENCE)?;
        story.row(what, &to.to_string(), &cast::describe(&answer));
        story.expect("refused at once", answer == Answer::Refused);
    }
    Ok(())
}

fn mistakes(story: &mut Story, lab: &Lab, examples: &Path) -> Result<(), LabError> {
    story.chapter("Two mistakes that people paste from the web");
    // Before 1.25 kubectl looks for unknown fields itself, and names them without a guess.
    let by_old_kubectl = "unknown field \"pubishNotReadyAddresses\" in io.k8s.api.core.v1.ServiceSpec";
    for (file, wanted) in [
        ("refused/05-session-affinity.yaml", ["did you mean \"ClientIP\"?"; 2]),
        ("refused/08-publish-not-ready.yaml", ["did you mean \"publishNotReadyAddresses\"?", by_old_kubectl]),
    ] {
        let path = examples.join(file);
        let manifest = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        story.command(&format!("kubectl apply -f examples/{file}"));
        let output = lab.kubectl().output(&["apply", "-f", "-"], &manifest)?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        story.output(&message);
        story.expect(
            "refused, and the message leads to the mistake",
            !output.status.success() && wanted.iter().any(|part| message.contains(part)),
        );
    }
    Ok(())
}
