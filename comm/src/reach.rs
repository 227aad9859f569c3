//! From a name to an answer: every address that it has is tried, and a port where nobody listens is known at once.
//!
//! Hosts have several addresses, of both families; which of them a scheduler listens on cannot be told from its name. They are
//! tried one after the other, a little apart or as soon as one has failed, and the first that answers is taken (RFC 8305,
//! "Happy Eyeballs"). Names are looked up at every attempt: what runs elsewhere after a restart has another address.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::connection::Connection;
use crate::endpoint::local_address_for;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// How long an address may take before the next one is tried too.
pub const STAGGER: Duration = Duration::from_millis(250);

/// When it is asked whether anybody listens, counted from the beginning of an attempt: the first question may get lost.
const PROBES: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1_500)];

/// The addresses of `HOST:PORT`, in the system's order.
///
/// # Errors
/// When it is no such thing, or has none; in words.
pub async fn lookup(name: &str) -> Result<Vec<SocketAddr>, String> {
    let well_formed = name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if name.contains("://") {
        return Err("it is HOST:PORT, without a scheme".to_owned());
    }
    if !well_formed {
        return Err("it has no port, or one that is no number".to_owned());
    }
    let found = tokio::net::lookup_host(name).await.map_err(|error| in_words(&error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

fn in_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").map_or(text.clone(), |reason| format!("no such host ({reason})"))
}

/// What `attempt` gives for the first of `addresses` for which it succeeds. The next one is begun when the last has failed, or
/// has taken `stagger`; the others are dropped once one has succeeded.
///
/// # Errors
/// When all fail: the failure that says most, by `weight`, the first of equals.
///
/// # Panics
/// When there is no address.
pub async fn race<T, E, F>(
    addresses: &[SocketAddr],
    stagger: Duration,
    mut attempt: impl FnMut(SocketAddr) -> F,
    weight: impl Fn(&E) -> u32,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = addresses.iter().copied();
    let mut under_way: Vec<Pin<Box<F>>> = waiting.next().map(|address| Box::pin(attempt(address))).into_iter().collect();
    let mut failures: Vec<E> = Vec::new();
    loop {
        let any = std::future::poll_fn(|cx| {
            for at in 0..under_way.len() {
                if let Poll::Ready(outcome) = under_way[at].as_mut().poll(cx) {
                    drop(under_way.remove(at));
                    return Poll::Ready(outcome);
                }
            }
            Poll::Pending
        });
        let has_more = waiting.len() > 0;
        let next_is_due = async { if has_more { tokio::time::sleep(stagger).await } else { pending().await } };
        tokio::select! {
            biased;
            outcome = any => match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push(error),
            },
            () = next_is_due => {}
        }
        under_way.extend(waiting.next().map(|address| Box::pin(attempt(address))));
        if under_way.is_empty() {
            let heaviest = failures.iter().map(&weight).max().unwrap_or_default();
            let at = failures.iter().position(|failure| weight(failure) == heaviest);
            return Err(failures.swap_remove(at.expect("at least one address was tried")));
        }
    }
}

/// Ready when the host at `address` has said that nobody listens there: hosts answer a packet to such a port with ICMP, which a
/// connected socket is told of. Never ready when nobody says anything, as behind most firewalls.
pub async fn refused(address: SocketAddr) {
    let watched = async {
        let socket = UdpSocket::bind(local_address_for(address)).await?;
        socket.connect(address).await?;
        let mut nothing = [0; 1];
        let mut since = Duration::ZERO;
        for at in PROBES {
            tokio::time::sleep(at - since).await;
            since = at;
            // Too short for a packet of QUIC, so whoever does listen drops it. An earlier refusal may be told here.
            socket.send(&[0]).await?;
            let heard = tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut nothing)).await;
            if let Ok(Err(error)) = heard {
                return Err(error);
            }
        }
        Ok(())
    };
    let watched: std::io::Result<()> = watched.await;
    if !watched.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
        pending::<()>().await;
    }
}

/// How often it is looked whether a peer has said anything.
const LOOK: Duration = Duration::from_millis(250);
/// Silence after which its host is asked whether it is still there.
const SUSPICIOUS: Duration = Duration::from_millis(500);
/// Silence after which somebody else is asked, where there is somebody. Every node gives a sign of life each second.
const SILENT: Duration = Duration::from_millis(1_600);

/// Ready when the peer of `connection` is known to be gone or, where there `is_another` to turn to, has been silent for longer than
/// those that live are. That the connection ends is noticed seconds later.
pub async fn gone(connection: &Connection, is_another: bool) {
    let seen = || connection.inner.stats().udp_rx.datagrams;
    let (mut before, mut silence) = (seen(), Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = seen();
        silence = if now == before { silence + LOOK } else { Duration::ZERO };
        before = now;
        if silence >= SILENT && is_another {
            return;
        }
        if silence >= SUSPICIOUS && tokio::time::timeout(LOOK, refused(connection.remote_address())).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken_and_none_waits_for_a_dead_one() {
        let attempt = |address: SocketAddr| async move {
            match address.port() {
                1 => pending().await,
                2 => Err("refused"),
                _ => Ok(address.port()),
            }
        };
        let begun = Instant::now();
        assert_eq!(race(&[at(1), at(2), at(3)], Duration::from_millis(20), attempt, |_| 0).await, Ok(3));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(race(&[at(2), at(3)], Duration::from_secs(60), attempt, |_| 0).await, Ok(3), "a failure is not waited out");
    }

    #[tokio::test]
    async fn when_all_fail_what_says_most_is_told() {
        let attempt = |address: SocketAddr| async move { Err::<(), _>(address.port()) };
        let weight = |port: &u16| u32::from(*port == 5);
        assert_eq!(race(&[at(4), at(5), at(6)], STAGGER, attempt, weight).await, Err(5));
        assert_eq!(race(&[at(4), at(6)], STAGGER, attempt, weight).await, Err(4));
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_known_at_once() {
        let nobody = std::net::UdpSocket::bind(at(0)).unwrap().local_addr().unwrap();
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(5), refused(nobody)).await.expect("the kernel says so");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let somebody = std::net::UdpSocket::bind(at(0)).unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(400), refused(somebody.local_addr().unwrap())).await;
        assert!(heard.is_err(), "a port that is taken is not refused");
    }

    #[tokio::test]
    async fn a_peer_that_lives_is_not_gone() {
        let pair = crate::tests::data_pair().await;
        let waiting = tokio::time::timeout(Duration::from_millis(2_600), gone(&pair.client, true));
        assert!(waiting.await.is_err(), "signs of life count");
    }

    #[tokio::test]
    async fn names_are_read_with_care() {
        assert_eq!(lookup("127.0.0.1:80").await, Ok(vec![at(80)]));
        for (wrong, why) in [("127.0.0.1", "port"), ("tcp://127.0.0.1:80", "scheme"), (":80", "port"), ("x:99999", "port")] {
            let error = lookup(wrong).await.unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
