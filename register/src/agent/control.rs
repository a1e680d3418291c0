//! What an operator may ask of the running agent, over its control socket.

use std::sync::Arc;

use model::desired::{ContainerId, Decision};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// Containers as an operator names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// All that have a registration.
    All,
    /// These: by name, by id, or by the beginning of an id.
    Some(Vec<String>),
}

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Request {
    /// Drain, or end a drain.
    pub drain: bool,
    /// Which containers.
    pub whom: Whom,
    /// The names of the containers that are meant; or why nothing was done.
    pub reply: oneshot::Sender<Result<Vec<String>, String>>,
}

/// The request of `register drain` (or `undrain`) as it goes over the socket.
pub fn encode(drain: bool, whom: &Whom) -> Value {
    let operation = if drain { "drain" } else { "undrain" };
    match whom {
        Whom::All => json!({ "operation": operation, "all": true }),
        Whom::Some(names) => json!({ "operation": operation, "containers": names }),
    }
}

fn decode(request: &Value) -> Result<(bool, Whom), String> {
    let drain = match request.get("operation").and_then(Value::as_str) {
        Some("drain") => true,
        Some("undrain") => false,
        other => return Err(format!("operation {other:?} is neither drain nor undrain")),
    };
    if request.get("all") == Some(&Value::Bool(true)) {
        return Ok((drain, Whom::All));
    }
    let names = request.get("containers").and_then(Value::as_array).ok_or("containers is no list")?;
    let names: Option<Vec<_>> = names.iter().map(|n| n.as_str().map(str::to_owned)).collect();
    Ok((drain, Whom::Some(names.ok_or("containers holds something other than names")?)))
}

/// Hands a request from the socket to the agent and waits for its answer.
///
/// # Errors
/// Why nothing was done, for the operator.
pub async fn handle(agent: mpsc::Sender<Request>, request: Value) -> Result<Value, String> {
    let (drain, whom) = decode(&request)?;
    let (reply, answer) = oneshot::channel();
    let ending = |_| "the agent is ending".to_owned();
    agent.send(Request { drain, whom, reply }).await.map_err(|_| ending(()))?;
    let containers = answer.await.map_err(|_| ending(()))??;
    Ok(json!({ "containers": containers }))
}

/// The containers that `whom` means, with their names, each once.
///
/// # Errors
/// A name that fits no registered container, or several.
pub fn resolve(whom: &Whom, decisions: &[Arc<Decision>]) -> Result<Vec<(ContainerId, String)>, String> {
    let mut known: Vec<(&ContainerId, &str)> =
        decisions.iter().filter(|d| d.candidate().is_some()).map(|d| (&d.container, &*d.name)).collect();
    known.sort_unstable();
    known.dedup();
    let own = |(id, name): &(&ContainerId, &str)| ((*id).clone(), (*name).to_owned());
    let Whom::Some(names) = whom else { return Ok(known.iter().map(own).collect()) };
    let mut found = Vec::new();
    for wanted in names {
        let by_name = known.iter().find(|(_, name)| name == wanted);
        let by_id: Vec<_> = known.iter().filter(|(id, _)| id.as_str().starts_with(wanted.as_str())).collect();
        match (by_name, by_id.as_slice()) {
            (Some(one), _) => found.push(own(one)),
            (None, [one]) if !wanted.is_empty() => found.push(own(one)),
            (None, []) => return Err(format!("no registered container is called {wanted:?}")),
            (None, _) => return Err(format!("several registered containers begin with {wanted:?}")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_socket_and_others_are_refused() {
        for (drain, whom) in [(true, Whom::All), (false, Whom::Some(vec!["web".into()]))] {
            assert_eq!(decode(&encode(drain, &whom)), Ok((drain, whom)));
        }
        for bad in [json!({}), json!({"operation": "stop"}), json!({"operation": "drain", "containers": [1]}), json!(1)]
        {
            assert!(decode(&bad).is_err(), "{bad}");
        }
    }
}
