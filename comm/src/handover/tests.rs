//! Results handed over, and peers that agree to it and then do not keep to it: the network must bring what they owe.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::mpsc as std_mpsc;

use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, GraphId, Part, Registry, TaskId, TaskIdx, Value};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::memory::seal_copy;
use super::socket::Writer;
use super::*;
use crate::data::{FetchError, Fetched};
use crate::tests::{Pair, SlowDisk, data_pair};
use crate::{Peers, fetch, serve_data};

const SMALL: usize = 5_000;
const LARGE: usize = 300_000;
pub(super) const LONG: Duration = Duration::from_secs(10);

pub(super) fn item(idx: u32) -> PartRequest {
    PartRequest { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
}

pub(super) fn grants(items: &[PartRequest]) -> Grants {
    crate::tests::grant_key().grants_of(items)
}

fn content(idx: u32) -> Bytes {
    let nbytes = if idx.is_multiple_of(2) { SMALL } else { LARGE };
    Bytes::from((0..nbytes).map(|at| (at / 9) as u8 ^ idx as u8).collect::<Vec<u8>>())
}

/// A worker's results, and whether and how it hands them over.
struct Source {
    results: HashMap<PartRequest, Value>,
    handover: Option<Handover>,
}

impl PartSource for Source {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        crate::tests::grant_key().opens(graph, grant)
    }

    fn get(&self, item: &PartRequest) -> Option<Value> {
        self.results.get(item).cloned()
    }

    fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }
}

pub(super) fn source(n_results: u32, handover: Option<Handover>) -> Arc<dyn PartSource> {
    let results = (0..n_results).map(|idx| (item(idx), Value::new(Opaque(content(idx))))).collect();
    Arc::new(Source { results, handover })
}

pub(super) type Outcome = Result<Fetched, FetchError>;

fn bytes_of(outcome: &Outcome) -> Bytes {
    outcome.as_ref().unwrap().value.downcast::<Opaque>().unwrap().0.clone()
}

/// What came over the link, and the indexes of what did not.
async fn fetch_over(link: &Link, items: &[PartRequest]) -> (Vec<(usize, Outcome)>, Vec<usize>) {
    let (outcomes_in, outcomes) = std_mpsc::channel();
    let (rest_in, rest) = oneshot::channel();
    let on_item = move |idx, outcome| outcomes_in.send((idx, outcome)).unwrap();
    link.fetch(grants(items), items.to_vec(), Arc::new(Registry::new()), on_item, |rest| rest_in.send(rest).unwrap());
    let rest = timeout(LONG, rest).await.expect("every request ends").unwrap();
    (outcomes.try_iter().collect(), rest)
}

/// As a worker does: over the link, and the rest over QUIC.
async fn fetch_all(pair: &Pair, link: &Link, items: &[PartRequest]) -> (HashMap<usize, Bytes>, usize) {
    let (outcomes, rest) = fetch_over(link, items).await;
    let mut all: HashMap<usize, Bytes> = outcomes.iter().map(|(idx, outcome)| (*idx, bytes_of(outcome))).collect();
    let left: Vec<PartRequest> = rest.iter().map(|idx| items[*idx]).collect();
    fetch(&pair.client, &grants(&left), &left, &Registry::new(), |at, outcome| {
        assert!(all.insert(rest[at], bytes_of(&outcome)).is_none(), "item {at} came twice");
    })
    .await;
    (all, rest.len())
}

async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never comes to this");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn n_open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn results_are_handed_over_whole_and_in_order() {
    for giver in [lenient(), sealing()] {
        hand_over_in_order(giver).await;
    }
}

/// As both ends are in one process here, which is otherwise not read from.
pub(super) fn lenient() -> Handover {
    Handover::start_with(Some(SpecimenPlace::new().unwrap()), true).unwrap()
}

/// A giver that nobody reads from.
fn sealing() -> Handover {
    Handover::start_with(None, true).unwrap()
}

async fn hand_over_in_order(giver: Handover) {
    let is_sealing = giver.inner.specimen.is_none();
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), source(6, Some(giver))));
    let handover = lenient();
    let link = handover.connect(&pair.client).await.usable().expect("both are on this host");
    let sent_before = pair.server.inner.stats().udp_tx.bytes;
    let items: Vec<PartRequest> = (0..7).map(item).collect();
    let (outcomes, rest) = fetch_over(&link, &items).await;
    assert_eq!(rest, [] as [usize; 0]);
    assert!(outcomes.iter().map(|(idx, _)| *idx).eq(0..7));
    for (idx, outcome) in &outcomes[..6] {
        let bytes = bytes_of(outcome);
        assert_eq!(bytes, content(*idx as u32), "result {idx}");
        assert!(bytes.as_ptr().addr().is_multiple_of(64));
        assert_eq!(outcome.as_ref().unwrap().nbytes, bytes.len() as u64);
    }
    assert!(matches!(outcomes[6].1, Err(FetchError::NotThere)));
    assert_eq!(handover.inner.kept.len(), if is_sealing { 3 } else { 0 }, "the large ones come in files, or need none");
    assert!(pair.server.inner.stats().udp_tx.bytes - sent_before < SMALL as u64, "nothing went over the network");
}

#[tokio::test]
async fn a_result_that_is_long_in_being_read_is_waited_for() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(SlowDisk(source(2, Some(lenient()))))));
    let handover = lenient();
    let link = handover.connect(&pair.client).await.usable().expect("both are on this host");
    let (outcomes, rest) = fetch_over(&link, &[item(1)]).await;
    assert_eq!(rest, [] as [usize; 0]);
    assert_eq!(bytes_of(&outcomes[0].1), content(1));
    assert!(!link.is_broken());
}

#[tokio::test]
async fn what_was_handed_over_is_passed_on_without_a_copy() {
    let (first, second) = (data_pair().await, data_pair().await);
    tokio::spawn(serve_data(first.server.clone(), source(2, Some(sealing()))));
    let middle = sealing();
    let link = middle.connect(&first.client).await.usable().unwrap();
    let (outcomes, _) = fetch_over(&link, &[item(1)]).await;
    let value = outcomes[0].1.as_ref().unwrap().value.clone();
    drop(outcomes);
    assert_eq!(middle.inner.kept.len(), 1);
    let results = HashMap::from([(item(1), value)]);
    tokio::spawn(serve_data(second.server.clone(), Arc::new(Source { results, handover: Some(middle.clone()) })));
    let last = lenient();
    let link = last.connect(&second.client).await.usable().unwrap();
    let (outcomes, _) = fetch_over(&link, &[item(1)]).await;
    assert_eq!(bytes_of(&outcomes[0].1), content(1));
    let file_of = |handover: &Handover, bytes: &Bytes| {
        let (file, ..) = handover.inner.kept.find(std::slice::from_ref(bytes)).expect("the file is kept");
        rustix::fs::fstat(&*file).unwrap().st_ino
    };
    let held = rustix::fs::fstat(&*middle.inner.kept.only_file_for_test()).unwrap().st_ino;
    assert_eq!(file_of(&last, &bytes_of(&outcomes[0].1)), held, "the same memory on both sides");
}

#[tokio::test]
async fn strangers_and_the_unwilling_get_no_link() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), source(1, None)));
    let handover = lenient();
    assert!(matches!(handover.connect(&pair.client).await, Linked::Unwanted), "the peer does not want to");

    let pair = data_pair().await;
    let server = lenient();
    let results = source(1, Some(server.clone()));
    tokio::spawn(serve_data(pair.server.clone(), Arc::clone(&results)));
    assert!(matches!(server.answer("elsewhere", &pair.server, &results), Answer::No));
    // A wrong secret, half a secret, a secret used twice, and one that is too old.
    let Answer::Offer { name, secret, .. } = server.answer(&host_identity(), &pair.server, &results) else { panic!("no offer") };
    let mut wrong = secret;
    wrong[0] ^= 1;
    assert!(is_refused(&name, &wrong).await);
    assert!(is_refused(&name, &secret[..20]).await);
    let stream = enter(&name, &secret).await.unwrap();
    assert!(is_refused(&name, &secret).await, "a secret is good once");
    drop(stream);
    let Answer::Offer { secret, .. } = server.answer(&host_identity(), &pair.server, &results) else { panic!("no offer") };
    server.inner.pending.lock().unwrap().get_mut(&secret).unwrap().offered -= STEP_LIMIT;
    assert!(is_refused(&name, &secret).await);
}

/// Whether the other side hangs up without having answered a request.
async fn is_refused(name: &[u8], words: &[u8]) -> bool {
    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut reader, mut writer) = socket::split(UnixStream::from_std(stream).unwrap());
    writer.add(Bytes::copy_from_slice(words)).await.unwrap();
    let mut request = Vec::new();
    let wishes = [Wish::Reads(false), Wish::Parts { grants: Cow::Owned(grants(&[item(0)])), items: Cow::Owned(vec![item(0)]) }];
    wishes.iter().for_each(|wish| codec::encode_frame(std::slice::from_ref(wish), FRAME_LIMIT, &mut request).unwrap());
    if words.len() == 32 {
        writer.add(Bytes::from(request)).await.unwrap();
    }
    let _ = writer.flush().await;
    !matches!(timeout(LONG, reader.frame()).await.expect("it hangs up"), Ok(Some(_)))
}

#[tokio::test]
async fn a_link_ends_with_its_connection() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), source(2, Some(lenient()))));
    let handover = lenient();
    let link = handover.connect(&pair.client).await.usable().unwrap();
    assert_eq!(fetch_over(&link, &[item(0)]).await.1.len(), 0);
    pair.server.close("over");
    pair.client.closed().await;
    let (outcomes, rest) = fetch_over(&link, &[item(0), item(1)]).await;
    assert_eq!((outcomes.len(), rest), (0, vec![0, 1]));
    until(|| link.is_broken()).await;
}

#[tokio::test]
async fn callers_share_a_link_and_a_broken_one_is_not_used() {
    let pair = data_pair().await;
    let address = pair.server_endpoint.local_addr().unwrap();
    let results = source(2, Some(lenient()));
    let endpoint = pair.server_endpoint.clone();
    tokio::spawn(async move {
        while let Some(crate::Incoming::Peer { connection, .. }) = endpoint.accept().await {
            tokio::spawn(serve_data(connection, Arc::clone(&results)));
        }
    });
    let without = Peers::new(pair.client_endpoint.clone());
    assert!(without.link(address, "server").await.is_none());
    let peers = Peers::new(pair.client_endpoint.clone()).with_handover(Some(lenient()));
    assert!(peers.ready_link(address, "server").is_none());
    let (first, second) = tokio::join!(peers.link(address, "server"), peers.link(address, "server"));
    assert!(first.is_some() && second.is_some());
    assert!(peers.ready_link(address, "server").is_some());
    peers.get(address, "server").await.unwrap().close("over");
    until(|| peers.ready_link(address, "server").is_none()).await;
    assert!(peers.link(address, "server").await.is_some(), "another connection, another link");
}

/// A source that never finds one of its results.
struct Stuck(Handover);

impl PartSource for Stuck {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        crate::tests::grant_key().opens(graph, grant)
    }

    fn get(&self, wanted: &PartRequest) -> Option<Value> {
        (*wanted != item(9)).then(|| Value::new(Opaque(content(wanted.task.idx.0))))
    }

    fn handover(&self) -> Option<&Handover> {
        Some(&self.0)
    }

    fn read_back<'a>(&'a self, _item: &'a PartRequest) -> crate::data::BoxFuture<'a, Option<Value>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_broken_link_is_mended_on_the_same_connection() {
    let pair = data_pair().await;
    let address = pair.server_endpoint.local_addr().unwrap();
    let endpoint = pair.server_endpoint.clone();
    tokio::spawn(async move {
        let source: Arc<dyn PartSource> = Arc::new(Stuck(lenient()));
        while let Some(crate::Incoming::Peer { connection, .. }) = endpoint.accept().await {
            tokio::spawn(serve_data(connection, Arc::clone(&source)));
        }
    });
    let peers = Peers::new(pair.client_endpoint.clone()).with_handover(Some(lenient()));
    let link = peers.link(address, "server").await.unwrap();
    let connection = peers.get(address, "server").await.unwrap();
    // More requests at once than anybody makes who means well.
    for _ in 0..100 {
        link.fetch(grants(&[item(9)]), vec![item(9)], Arc::new(Registry::new()), |_, _| {}, |_| {});
    }
    until(|| link.is_broken()).await;
    assert!(peers.link(address, "server").await.is_none(), "not at once");
    let deadline = Instant::now() + LONG;
    let mended = loop {
        assert!(Instant::now() < deadline, "the link is not mended");
        match peers.link(address, "server").await {
            Some(link) => break link,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let (outcomes, rest) = fetch_over(&mended, &[item(0), item(1)]).await;
    assert_eq!((outcomes.len(), rest.len()), (2, 0));
    assert!(!connection.is_closed(), "it was the same connection all along");
}

/// What a peer does instead of answering.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Unsealed,
    TooShort,
    NoDescriptor,
    NoMemory,
    OtherResult,
    Garbage,
    TooMuchOnTheSocket,
    ManyDescriptors,
    HangUp,
    PastTheEnd,
    Hole,
}

async fn misbehave(fault: Fault, wanted: &PartRequest, writer: &mut Writer) -> io::Result<()> {
    let range = |nbytes| vec![Range { offset: 0, nbytes }];
    let memory = |item: PartRequest, nbytes: u64| {
        let place = Place::Memory { nbytes, buffers: range(nbytes) };
        let handed = Handed::Found { item, kind: "bytes".into(), header: Bytes::new(), place };
        let mut frame = Vec::new();
        codec::encode_frame(&[handed], FRAME_LIMIT, &mut frame).unwrap();
        Bytes::from(frame)
    };
    let bytes = content(1);
    let whole = LARGE as u64;
    let sealed = || seal_copy(std::slice::from_ref(&bytes), &range(whole), whole).unwrap();
    match fault {
        Fault::Unsealed => {
            let file = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            rustix::io::pwrite(&file, &bytes, 0)?;
            fcntl_add_seals(&file, SealFlags::GROW)?;
            writer.write_with_file(memory(*wanted, whole), file.as_fd()).await
        }
        Fault::TooShort => writer.write_with_file(memory(*wanted, whole + 1), sealed().as_fd()).await,
        Fault::PastTheEnd => {
            let place = Place::Memory { nbytes: whole, buffers: vec![Range { offset: 64, nbytes: whole }] };
            let handed = Handed::Found { item: *wanted, kind: "bytes".into(), header: Bytes::new(), place };
            let mut frame = Vec::new();
            codec::encode_frame(&[handed], FRAME_LIMIT, &mut frame).unwrap();
            writer.write_with_file(Bytes::from(frame), sealed().as_fd()).await
        }
        Fault::NoDescriptor => {
            writer.add(memory(*wanted, whole)).await?;
            writer.flush().await
        }
        Fault::NoMemory => {
            let (pipe, _other) = std::io::pipe()?;
            writer.write_with_file(memory(*wanted, whole), pipe.as_fd()).await
        }
        Fault::OtherResult => writer.write_with_file(memory(item(99), whole), sealed().as_fd()).await,
        Fault::Garbage => {
            writer.add(Bytes::from(vec![0x5a; 1 << 16])).await?;
            writer.flush().await
        }
        Fault::TooMuchOnTheSocket => {
            let place = Place::Here(vec![u64::MAX, 1 << 40]);
            let handed = Handed::Found { item: *wanted, kind: "bytes".into(), header: Bytes::new(), place };
            let mut frame = Vec::new();
            codec::encode_frame(&[handed], FRAME_LIMIT, &mut frame).unwrap();
            writer.add(Bytes::from(frame)).await?;
            writer.flush().await
        }
        Fault::ManyDescriptors => {
            // One byte of a frame at a time, each with a descriptor.
            let file = sealed();
            for byte in memory(*wanted, whole).iter().cycle().take(1_000) {
                writer.write_with_file(Bytes::copy_from_slice(&[*byte]), file.as_fd()).await?;
            }
            Ok(())
        }
        Fault::Hole => {
            let places = vec![Range { offset: 8, nbytes: whole }];
            let handed = Handed::Found { item: *wanted, kind: "bytes".into(), header: Bytes::new(), place: Place::There(places) };
            let mut frame = Vec::new();
            codec::encode_frame(&[handed], FRAME_LIMIT, &mut frame).unwrap();
            writer.add(Bytes::from(frame)).await?;
            writer.flush().await
        }
        Fault::HangUp => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// A link whose other end answers the first request with `fault`.
async fn faulty_link(pair: &Pair, handover: &Handover, fault: Fault, peer: Option<Readable>) -> Link {
    let (ours, theirs) = StdStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let (mut reader, mut writer) = socket::split(UnixStream::from_std(theirs).unwrap());
        let mut wishes = Vec::new();
        while wishes.len() < 2 {
            wishes.extend(codec::decode_frame::<Wish<'static>>(&reader.frame().await.unwrap().unwrap()).unwrap());
        }
        let Some(Wish::Parts { items: wanted, .. }) = wishes.pop() else { panic!("no request: {wishes:?}") };
        if misbehave(fault, &wanted[0], &mut writer).await.is_ok() {
            // Until the other side has had enough.
            let _ = reader.frame().await;
        }
    });
    let (connection, kept) = (pair.client.clone(), Arc::clone(&handover.inner.kept));
    let linked =
        handover.inner.runtime.spawn(async move { Link::start(UnixStream::from_std(ours).unwrap(), connection, kept, peer) });
    linked.await.unwrap()
}

#[tokio::test]
async fn whatever_a_peer_hands_over_the_right_bytes_arrive() {
    let pair = data_pair().await;
    tokio::spawn(serve_data(pair.server.clone(), source(4, None)));
    let handover = lenient();
    let items: Vec<PartRequest> = [1, 0, 3, 2].map(item).to_vec();
    let faults = [
        Fault::Unsealed,
        Fault::TooShort,
        Fault::PastTheEnd,
        Fault::NoDescriptor,
        Fault::NoMemory,
        Fault::OtherResult,
        Fault::Garbage,
        Fault::TooMuchOnTheSocket,
        Fault::ManyDescriptors,
        Fault::HangUp,
        Fault::Hole,
    ];
    let place = SpecimenPlace::new().unwrap();
    let readable = Readable::find(place.specimen(), std::process::id() as i32, true);
    assert!(readable.is_some());
    for (fault, peer) in faults.into_iter().flat_map(|fault| [(fault, None), (fault, readable)]) {
        let link = faulty_link(&pair, &handover, fault, peer).await;
        let (all, n_by_network) = fetch_all(&pair, &link, &items).await;
        // One descriptor too many is noticed when its frame, the first, has been answered rightly.
        let n_right = usize::from(matches!(fault, Fault::ManyDescriptors));
        assert_eq!(n_by_network, items.len() - n_right, "{fault:?}");
        for (idx, wanted) in items.iter().enumerate() {
            assert_eq!(all[&idx], content(wanted.task.idx.0), "{fault:?}");
        }
        drop(all);
        until(|| link.is_broken() && handover.inner.kept.len() == 0).await;
    }
    // Nothing is leaked: as many descriptors as at the start of a second round of the same.
    let before = n_open_files();
    for fault in faults {
        let link = faulty_link(&pair, &handover, fault, readable).await;
        fetch_all(&pair, &link, &items).await;
    }
    // Other tests of this process open and close files too.
    until(|| n_open_files() <= before + 3).await;
}

/// Set for the process in which descriptors are few.
const FEW: &str = "RASK_TEST_FEW_DESCRIPTORS";

/// Runs itself again in a process of its own, because a limit is one of a process.
#[test]
fn few_descriptors_are_enough() {
    if std::env::var_os(FEW).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "handover::tests::few_descriptors_are_enough", "--nocapture"]).env(FEW, "yes");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("few were enough"));
        return;
    }
    use rustix::process::{Rlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pair = data_pair().await;
        tokio::spawn(serve_data(pair.server.clone(), source(200, Some(sealing()))));
        let handover = lenient();
        let link = handover.connect(&pair.client).await.usable().unwrap();
        let items: Vec<PartRequest> = (0..200).map(item).collect();
        let (all, _) = fetch_all(&pair, &link, &items).await;
        assert!((0..200).all(|idx| all[&(idx as usize)] == content(idx)));
        assert_eq!(handover.inner.kept.len(), 16, "a quarter of the limit is used for keeping files");
        drop(all);
        // None left at all: neither a file for a result nor its descriptor finds a place.
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        let (all, n_by_network) = fetch_all(&pair, &link, &items).await;
        assert!((0..200).all(|idx| all[&(idx as usize)] == content(idx)));
        assert!(n_by_network > 0);
        drop(taken);
    });
    println!("few were enough");
}
