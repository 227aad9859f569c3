//! Peers that would have their victim read memory that is not theirs, say something to other programs, or give what it must not.

use std::sync::mpsc as std_mpsc;

use rask_graphs::Registry;

use super::tests::{LONG, Outcome, grants, item, lenient, source};
use super::*;
use crate::data::FetchError;
use crate::serve_data;
use crate::tests::data_pair;

/// What a peer answers that has the victim read from a process of its choice; what the victim then says on the peer's socket.
async fn first_wish_to(handover: &Handover, name: Vec<u8>, listener: StdListener, specimen: Specimen) -> Option<Wish<'static>> {
    let pair = data_pair().await;
    let server = pair.server.clone();
    tokio::spawn(async move {
        let (mut send, _receive) = server.inner.accept_bi().await.unwrap();
        let mut frame = Vec::new();
        let offer = Answer::Offer { name, secret: [7; 32], specimen: Some(specimen) };
        codec::encode_frame(&[offer], FRAME_LIMIT, &mut frame).unwrap();
        send.write_all(&frame).await.unwrap();
        let _ = send.finish();
        let _ = send.stopped().await;
        server.closed().await;
    });
    let (linked, stream) = tokio::join!(
        handover.connect(&pair.client),
        timeout(Duration::from_secs(2), async {
            listener.set_nonblocking(true).unwrap();
            UnixListener::from_std(listener).unwrap().accept().await.unwrap().0
        })
    );
    let (Some(link), Ok(stream)) = (linked.usable(), stream) else { return None };
    // What it says first leaves with its first request.
    link.fetch(grants(&[item(0)]), vec![item(0)], Arc::new(Registry::new()), |_, _| {}, |_| {});
    let (mut reader, _writer) = socket::split(stream);
    // After the secret, which is no frame of its own.
    let mut secret = [0; 32];
    secret.copy_from_slice(&reader.buffer(32).await.unwrap());
    assert_eq!(secret, [7; 32]);
    codec::decode_frame::<Wish<'static>>(&reader.frame().await.unwrap().unwrap()).unwrap().pop()
}

fn attackers_socket() -> (Vec<u8>, StdListener) {
    let name = format!("rask-{}-{}", std::process::id(), data_encoding::HEXLOWER.encode(&random::<16>().unwrap())).into_bytes();
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    (name, listener)
}

/// Something that another process of this user has in its memory, which this one may read: where its program lies.
struct Bystander {
    process: std::process::Child,
    specimen: Specimen,
}

impl Bystander {
    #[expect(clippy::zombie_processes, reason = "ended when it is dropped")]
    fn new() -> Self {
        let process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = process.id() as i32;
        let deadline = Instant::now() + LONG;
        loop {
            // Its stack, which is there from the beginning.
            let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
            let stack = maps.lines().find(|line| line.ends_with("[stack]"));
            let end = stack.and_then(|line| u64::from_str_radix(line.split_once('-')?.1.split_once(' ')?.0, 16).ok());
            if let Some(specimen) = end.and_then(|end| Specimen::read_for_test(id, end - 64)) {
                return Self { process, specimen };
            }
            assert!(Instant::now() < deadline, "the system lets nobody read another process");
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_peer_cannot_have_a_third_process_read() {
    let bystander = Bystander::new();
    let (name, listener) = attackers_socket();
    let wish = first_wish_to(&Handover::start().unwrap(), name, listener, bystander.specimen).await;
    assert!(matches!(wish, Some(Wish::Reads(false))), "{wish:?}");
}

#[tokio::test]
async fn a_peer_cannot_have_its_victim_read_itself() {
    let victim = Handover::start().unwrap();
    let own = victim.inner.specimen.as_ref().unwrap().specimen();
    let (name, listener) = attackers_socket();
    let wish = first_wish_to(&victim, name, listener, own).await;
    assert!(matches!(wish, Some(Wish::Reads(false))), "{wish:?}");
}

#[tokio::test]
async fn nothing_is_said_to_sockets_of_other_programs_and_processes() {
    let own = SpecimenPlace::new().unwrap().specimen();
    let hex = "0123456789abcdef0123456789abcdef";
    // Another program's; one whose name says that it is of another process; and one that says nothing.
    for name in [format!("other-{}-{hex}", std::process::id()), format!("rask-1-{hex}"), format!("rask-{}-x", std::process::id())]
    {
        let name = name.into_bytes();
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let heard = listener.try_clone().unwrap();
        assert!(first_wish_to(&lenient(), name, listener, own).await.is_none());
        heard.set_nonblocking(true).unwrap();
        assert!(heard.accept().is_err(), "nobody stays, and what was accepted has been dropped unread");
    }
}

#[tokio::test]
async fn a_link_gives_nothing_without_a_grant() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), source(2, Some(lenient()))));
    let handover = lenient();
    let link = handover.connect(&pair.client).await.usable().unwrap();
    for grants in [Grants::default(), crate::SecretKey::random().unwrap().grants_of(&[item(0)])] {
        let (outcomes_in, outcomes) = std_mpsc::channel();
        let (rest_in, rest) = oneshot::channel();
        let on_item = move |_idx, outcome: Outcome| outcomes_in.send(outcome).unwrap();
        link.fetch(grants, vec![item(0), item(9)], Arc::new(Registry::new()), on_item, |rest| rest_in.send(rest).unwrap());
        assert_eq!(timeout(LONG, rest).await.unwrap().unwrap(), Vec::<usize>::new());
        let told: Vec<FetchError> = outcomes.try_iter().map(Result::unwrap_err).collect();
        assert_eq!(told, [FetchError::NotThere, FetchError::NotThere], "what is there is as what is not");
    }
}
