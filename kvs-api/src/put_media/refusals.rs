//! Refusals, slowed down for each source: the C producer connects again 12 ms after one, for ever.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use vidar_core::clock::SharedClock;

use super::rate::Debt;

/// That a source gets in a second over all its connections. Behind one address there may be many cameras.
const PER_S: u32 = 20;
const AT_ONCE: Duration = Duration::from_secs(1);
/// Above it a source whose connections are many waits no longer: they are bounded elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(10);
const SOURCE_COUNT_MAX: usize = 4096;

struct Refusals {
    clock: SharedClock,
    /// Guards what each source got; held for a look-up.
    sources: Mutex<HashMap<IpAddr, Debt>>,
}

/// Lets each source have so many refusals in a second, and no more.
pub(super) fn slow(router: Router, clock: SharedClock) -> Router {
    let refusals = Arc::new(Refusals { clock, sources: Mutex::default() });
    router.layer(middleware::from_fn_with_state(refusals, pass))
}

async fn pass(State(refusals): State<Arc<Refusals>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        tokio::time::sleep(refusals.wait(source(peer))).await;
    }
    response
}

/// One address, or of IPv6 one network: a host has as many addresses there as it likes.
fn source(peer: Option<IpAddr>) -> IpAddr {
    match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        Some(address) => address,
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

impl Refusals {
    fn wait(&self, source: IpAddr) -> Duration {
        let now = self.clock.monotonic();
        let mut sources = self.sources.lock().expect("no panic under this lock");
        if sources.len() >= SOURCE_COUNT_MAX {
            sources.retain(|_, debt| debt.is_owed(now));
        }
        if sources.len() >= SOURCE_COUNT_MAX && !sources.contains_key(&source) {
            return WAIT_MAX;
        }
        sources.entry(source).or_default().take(now, 1, Some(PER_S), AT_ONCE).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::clock::ManualClock;
    use vidar_core::time::UnixMs;

    use super::*;

    #[test]
    fn each_source_waits_for_itself_and_not_for_ever() {
        let clock = ManualClock::new(UnixMs(0));
        let refusals = Refusals { clock: clock.clone(), sources: Mutex::default() };
        let [one, other] = ["192.0.2.1", "2001:db8::1"].map(|ip| source(Some(ip.parse().unwrap())));
        assert_eq!(other, source(Some("2001:db8::ffff:1".parse().unwrap())));
        assert_eq!(one, source(Some("::ffff:192.0.2.1".parse().unwrap())));
        assert!((0..PER_S).all(|_| refusals.wait(one).is_zero()));
        assert_eq!(refusals.wait(one), Duration::from_millis(50));
        assert_eq!(refusals.wait(other), Duration::ZERO);
        for _ in 0..1000 {
            assert!(refusals.wait(one) <= WAIT_MAX);
        }
        clock.advance(Duration::from_secs(60));
        assert_eq!(refusals.wait(one), Duration::ZERO);
        for index in 0..10_000 {
            refusals.wait(IpAddr::V4(Ipv4Addr::from_bits(index)));
        }
        assert!(refusals.sources.lock().unwrap().len() <= SOURCE_COUNT_MAX);
    }
}
