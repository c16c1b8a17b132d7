//! The default ServiceCIDR `kubernetes`: made of the configured ranges, said to be ready, and made again when it is gone.
//!
//! One that differs from the configuration is left as it is, since addresses in use may depend on it; only a second
//! family is added. What happens to one that is deleted is for the controllers to say. Start at [`verdict`].

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Collected};
use portolan_api::resource::SERVICE_CIDRS;
use portolan_api::{Time, status};
use serde_json::{Value, json};

use crate::alloc::objects::ready_condition;
use crate::authn::{MASTERS, User};
use crate::errors::Result;
use crate::object;
use crate::reports::{self, About, Voice};
use crate::server::ApiServer;
use crate::write::{At, Part};

const NAME: &str = "kubernetes";
/// The field manager and the source of events, as in Kubernetes.
const CONTROLLER: &str = "kubernetes-service-cidr-controller";
const ERROR: &str = "KubernetesDefaultServiceCIDRError";
const AT: At<'static> = At { resource: &SERVICE_CIDRS, namespace: "", name: NAME };

/// What was said already and is not said again while this server runs.
#[derive(Debug, Default)]
pub(crate) struct Told {
    inconsistent: bool,
    not_ready: bool,
}

/// What to do about the object.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Create,
    /// From one family to two.
    Upgrade,
    SayReady,
    /// Its ranges are not those configured.
    Inconsistent,
    /// Somebody says that it is not ready.
    NotReady,
    Leave,
}

fn verdict(stored: Option<&Value>, wanted: &[String]) -> Verdict {
    let Some(object) = stored else { return Verdict::Create };
    let ranges = ranges(object);
    if let ([first, _], [only]) = (wanted, &ranges[..])
        && first == only
    {
        return Verdict::Upgrade;
    }
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Verdict::Leave;
    }
    if ranges != wanted {
        return Verdict::Inconsistent;
    }
    match ready_condition(object).and_then(|ready| ready["status"].as_str()) {
        None | Some("Unknown") => Verdict::SayReady,
        Some("False") => Verdict::NotReady,
        Some(_) => Verdict::Leave,
    }
}

fn ranges(object: &Value) -> Vec<&str> {
    object["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Looks at the object and does what is to be done about it.
pub(crate) async fn keep(server: &Arc<ApiServer>, told: &mut Told) -> Result<()> {
    let wanted: Vec<String> = server.config().service_cidrs.iter().map(ToString::to_string).collect();
    let stored = server.store().get(&AT.key()).await?.0;
    let stored = stored.map(|kv| object::to_value(&kv)).transpose()?;
    let verdict = verdict(stored.as_ref(), &wanted);
    let object = stored.unwrap_or_else(|| json!({ "metadata": { "name": NAME } }));
    let warn = async |reason: &str, message: &str| {
        let about = About::of(SERVICE_CIDRS.api_version(), SERVICE_CIDRS.kind, &object);
        reports::warn(server, &about, Voice::Source(CONTROLLER), reason, message).await;
    };
    match verdict {
        Verdict::Create => {
            let created = create(server, &wanted).await;
            if created.is_err() {
                warn(ERROR, "The default ServiceCIDR can not be created").await;
            }
            created?;
        }
        Verdict::Upgrade => {
            if let Err(error) = upgrade(server, &wanted).await {
                let (from, to, why) = (&wanted[0], go_list(&wanted), &error.0.message);
                let message = format!(
                    "The default ServiceCIDR can not be upgraded from {from} to dual stack {to} : {why}"
                );
                warn(ERROR, &message).await;
            }
        }
        Verdict::Inconsistent if !told.inconsistent => {
            told.inconsistent = true;
            let (is, flags) = (go_list(&ranges(&object)), go_list(&wanted));
            let message = format!(
                "The default ServiceCIDR {is} does not match the controller flag configurations {flags}"
            );
            warn("KubernetesDefaultServiceCIDRInconsistent", &message).await;
        }
        Verdict::NotReady if !told.not_ready => {
            told.not_ready = true;
            let text = |field| ready_condition(&object).and_then(|c| c[field].as_str()).unwrap_or_default();
            warn(text("reason"), &format!("Configuration matches, but {}", text("message"))).await;
        }
        _ => {}
    }
    if matches!(verdict, Verdict::Create | Verdict::SayReady)
        && let Err(error) = say_ready(server).await
    {
        tracing::warn!(error = %error.0.message, "the default ServiceCIDR cannot be said to be ready");
        warn(ERROR, "The default ServiceCIDR Status can not be set to Ready=True").await;
    }
    Ok(())
}

async fn create(server: &ApiServer, cidrs: &[String]) -> Result<()> {
    let object = json!({
        "apiVersion": SERVICE_CIDRS.api_version(),
        "kind": SERVICE_CIDRS.kind,
        "metadata": { "name": NAME },
        "spec": { "cidrs": cidrs },
    });
    match server.insert(&SERVICE_CIDRS, object, false, &mut Vec::new()).await {
        // Another server was faster.
        Err(error) if error.is("AlreadyExists") => Ok(()),
        made => made.map(drop),
    }
}

async fn upgrade(server: &ApiServer, cidrs: &[String]) -> Result<()> {
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        new["spec"]["cidrs"] = json!(cidrs);
        Ok(new)
    };
    server.change(AT, Part::Main, false, &mut Vec::new(), change).await.map(drop)
}

/// A request as any client makes it: applying is more than a change.
async fn say_ready(server: &Arc<ApiServer>) -> Result<()> {
    let object = json!({
        "apiVersion": SERVICE_CIDRS.api_version(),
        "kind": SERVICE_CIDRS.kind,
        "metadata": { "name": NAME },
        "status": { "conditions": [{
            "type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": Time::now().to_string(),
        }] },
    });
    let path = format!(
        "/apis/{}/{}/{NAME}/status?fieldManager={CONTROLLER}&force=true",
        SERVICE_CIDRS.api_version(),
        SERVICE_CIDRS.plural
    );
    let request = Request::patch(path).header(CONTENT_TYPE, "application/apply-patch+yaml");
    let mut request = request.body(Bytes::from(object.to_string())).map_err(status::internal_error)?;
    request.extensions_mut().insert(User::new("system:apiserver", [MASTERS]));
    let response = server.handle(request).await;
    if response.status().is_success() {
        return Ok(());
    }
    let body = response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    Err(status::internal_error(String::from_utf8_lossy(&body)).into())
}

/// As Go prints a list.
fn go_list(texts: &[impl AsRef<str>]) -> String {
    format!("[{}]", texts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ranges: &[&str]) -> Vec<String> {
        ranges.iter().map(|range| (*range).to_owned()).collect()
    }

    #[test]
    fn it_is_made_and_said_to_be_ready_and_otherwise_left_alone() {
        let one = wanted(&["10.96.0.0/24"]);
        assert_eq!(verdict(None, &one), Verdict::Create);
        let mut object = json!({ "metadata": {}, "spec": { "cidrs": one } });
        assert_eq!(verdict(Some(&object), &one), Verdict::SayReady);
        for (says, expected) in
            [("True", Verdict::Leave), ("False", Verdict::NotReady), ("Unknown", Verdict::SayReady)]
        {
            object["status"] = json!({ "conditions": [{ "type": "Ready", "status": says }] });
            assert_eq!(verdict(Some(&object), &one), expected, "{says}");
        }
        assert_eq!(verdict(Some(&object), &wanted(&["10.97.0.0/24"])), Verdict::Inconsistent);
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(verdict(Some(&object), &one), Verdict::Leave);
    }

    #[test]
    fn it_gains_a_family_and_never_loses_or_changes_one() {
        let object = |ranges: &[&str]| json!({ "metadata": {}, "spec": { "cidrs": ranges } });
        let (one, two) = (["10.96.0.0/24"], ["10.96.0.0/24", "fd00::/112"]);
        assert_eq!(verdict(Some(&object(&one)), &wanted(&two)), Verdict::Upgrade);
        assert_eq!(verdict(Some(&object(&two)), &wanted(&one)), Verdict::Inconsistent);
        let turned = wanted(&["fd00::/112", "10.96.0.0/24"]);
        for stored in [object(&one), object(&two)] {
            assert_eq!(verdict(Some(&stored), &turned), Verdict::Inconsistent);
        }
    }
}
