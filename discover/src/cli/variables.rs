//! A service's place as environment variables, `<SERVICE>_HOST` and `<SERVICE>_PORT`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::Services;
use model::{Backend, ServiceName};

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// The services whose variables a program gets, and the backend of each that they name.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By the prefix of their variables.
    services: BTreeMap<String, ServiceName>,
    chosen: BTreeMap<ServiceName, Arc<Backend>>,
}

/// `my-db.v2` → `MY_DB_V2`: upper case, an underscore for whatever is neither letter nor digit, and one before a digit at
/// the beginning, where a shell takes none.
pub(super) fn prefix(service: &ServiceName) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = service.as_str().chars().map(word).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

impl Places {
    /// Of these services. Of two whose variables would be the same the first counts; the others are given back.
    pub(super) fn of(services: impl IntoIterator<Item = ServiceName>) -> (Self, Vec<ServiceName>) {
        let (mut places, mut passed_over) = (Self::default(), Vec::new());
        for service in services {
            let known = places.services.entry(prefix(&service)).or_insert_with(|| service.clone());
            if *known != service {
                passed_over.push(service);
            }
        }
        (places, passed_over)
    }

    /// Looks at what is live now. A backend that was told stays as long as it takes clients; where none does, the last one
    /// stays: it may be all there will be.
    pub(super) fn look(&mut self, now: Services<'_>) {
        for service in self.services.values() {
            let was = self.chosen.get(service);
            let same = was.and_then(|was| now.live(service).find(|is| (&is.host, is.port) == (&was.host, was.port)));
            if let Some(backend) = same.or_else(|| now.live(service).next()) {
                self.chosen.insert(service.clone(), backend.clone());
            }
        }
    }

    /// The variables that the program gets.
    pub(super) fn variables(&self) -> Variables {
        let chosen = self.services.iter().filter_map(|(prefix, service)| Some((prefix, self.chosen.get(service)?)));
        chosen
            .flat_map(|(prefix, backend)| {
                let (host, port) = (backend.host.to_string(), backend.port.to_string());
                [(format!("{prefix}_HOST"), host), (format!("{prefix}_PORT"), port)]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{Pool, ServiceMap, Status};

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn services(pool: &[(&str, u16, Status)]) -> ServiceMap {
        let backends = pool.iter().map(|(host, port, status)| {
            let backend = Backend::new(host.parse().unwrap(), host.parse().unwrap(), (*port).try_into().unwrap());
            Arc::new(Backend { status: *status, ..backend })
        });
        [(name("web"), Arc::new(backends.collect::<Pool>()))].into()
    }

    #[test]
    fn a_variable_has_a_name_that_a_shell_takes() {
        for (service, wanted) in [("web", "WEB"), ("my-db.v2", "MY_DB_V2"), ("a:b_c", "A_B_C"), ("2web", "_2WEB")] {
            assert_eq!(prefix(&name(service)), wanted);
        }
    }

    #[test]
    fn of_two_services_with_one_name_of_variables_the_first_counts() {
        let (_, passed_over) = Places::of(["a-b", "a.b", "c"].map(name));
        assert_eq!(passed_over, [name("a.b")]);
    }

    #[test]
    fn a_backend_stays_told_as_long_as_it_takes_clients_and_the_last_one_for_ever() {
        use Status::{Draining, Up};
        let (mut places, _) = Places::of([name("web")]);
        let mut told = |pool: &[(&str, u16, Status)]| {
            places.look(Services(&services(pool)));
            places.variables().into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&[("h1", 80, Up)]), "WEB_HOST=h1 WEB_PORT=80");
        assert_eq!(told(&[("h0", 80, Up), ("h1", 80, Up)]), "WEB_HOST=h1 WEB_PORT=80");
        assert_eq!(told(&[("h0", 81, Up), ("h1", 80, Draining)]), "WEB_HOST=h0 WEB_PORT=81");
        assert_eq!(told(&[("h0", 81, Draining)]), "WEB_HOST=h0 WEB_PORT=81");
    }
}
