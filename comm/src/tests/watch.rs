//! Conversations about results being made: what arrives and in which order, limits, and peers that do not keep to the rules.

use std::sync::Arc;

use bytes::Bytes;
use rask_graphs::builtin::Opaque;
use rask_graphs::{Attempt, Epoch, GraphId, Part, Registry, TaskId, TaskIdx, Value, WorkerId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use super::{Pair, data_pair, pair};
use crate::data::Request;
use crate::watch::PUSH_LIMIT;
use crate::{
    CloseKind, FromWatcher, News, PartRequest, PartSource, Plane, PushError, Pusher, Role, StreamError, Tuning, Watch,
    WatchError, WatchHello, Watcher, codec, serve_data,
};

const LONG: Duration = Duration::from_secs(20);
const PASS: crate::Grant = crate::Grant::for_test();
const HELLO: WatchHello = WatchHello { epoch: Epoch(3), watcher: WorkerId(1), maker: WorkerId(2), pass: PASS };

fn item(idx: u32) -> PartRequest {
    PartRequest { task: TaskId::new(GraphId(1), TaskIdx(idx)), attempt: Attempt(1), part: Part::WHOLE }
}

fn value(nbytes: u64, seed: u8) -> Value {
    Value::new(Opaque((0..nbytes).map(|idx| (idx / 7) as u8 ^ seed).collect::<Vec<u8>>().into()))
}

fn bytes_of(news: &News) -> Bytes {
    let News::Pushed(fetched) = news else { panic!("it was not sent along: {news:?}") };
    fetched.value.downcast::<Opaque>().unwrap().0.clone()
}

/// Hands over whoever watches.
struct Door(mpsc::UnboundedSender<Watcher>);

impl PartSource for Door {
    fn opens(&self, graph: GraphId, grant: &crate::Grant) -> bool {
        super::grant_key().opens(graph, grant)
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        None
    }

    fn watched_by(&self, watcher: Watcher) {
        self.0.send(watcher).unwrap();
    }
}

/// Both ends of a conversation.
struct Talk {
    pair: Pair,
    watch: Watch,
    heard: mpsc::UnboundedReceiver<(PartRequest, News)>,
    watching: JoinHandle<WatchError>,
    pusher: Pusher,
    asked: mpsc::UnboundedReceiver<FromWatcher>,
    making: JoinHandle<WatchError>,
}

fn begin_watching(pair: &Pair, watch: &Watch) -> (mpsc::UnboundedReceiver<(PartRequest, News)>, JoinHandle<WatchError>) {
    let (sender, heard) = mpsc::unbounded_channel();
    let (connection, watch) = (pair.client.clone(), watch.clone());
    let watching = tokio::spawn(async move {
        watch.run(&connection, HELLO, &Registry::new(), |item, news| sender.send((item, news)).unwrap()).await
    });
    (heard, watching)
}

async fn visitor(pair: &Pair) -> Watcher {
    let (door, mut visitors) = mpsc::unbounded_channel();
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(Door(door))));
    timeout(LONG, visitors.recv()).await.unwrap().unwrap()
}

async fn talk() -> Talk {
    let pair = data_pair().await;
    let watch = Watch::default();
    watch.watch(&[item(0)]).unwrap();
    let (heard, watching) = begin_watching(&pair, &watch);
    let watcher = visitor(&pair).await;
    assert_eq!(watcher.hello(), HELLO);
    let pusher = Pusher::default();
    let (sender, mut asked) = mpsc::unbounded_channel();
    let making = tokio::spawn({
        let pusher = pusher.clone();
        async move { watcher.run(&pusher, |message| sender.send(message).unwrap()).await }
    });
    let first = timeout(LONG, asked.recv()).await.unwrap().unwrap();
    assert_eq!(first, FromWatcher::Watch(vec![item(0)]), "what was asked before there was a connection");
    Talk { pair, watch, heard, watching, pusher, asked, making }
}

impl Talk {
    async fn hear(&mut self) -> (PartRequest, News) {
        timeout(LONG, self.heard.recv()).await.unwrap().unwrap()
    }
}

async fn end(conversation: JoinHandle<WatchError>) -> WatchError {
    timeout(LONG, conversation).await.unwrap().unwrap()
}

#[tokio::test]
async fn small_results_come_along_and_big_ones_are_told_of_in_order() {
    let mut talk = talk().await;
    let sizes = [0, 1, 5_000, PUSH_LIMIT, PUSH_LIMIT + 1, 1 << 20, 17];
    for (idx, nbytes) in (0..).zip(sizes) {
        talk.pusher.push(item(idx), &value(nbytes, idx as u8)).unwrap();
    }
    for (idx, nbytes) in (0..).zip(sizes) {
        let (about, news) = talk.hear().await;
        assert_eq!(about, item(idx));
        match news {
            News::Made { nbytes: told } => assert!(nbytes > PUSH_LIMIT && told == nbytes, "{nbytes} bytes, told of {told}"),
            News::Pushed(_) => {
                let bytes = bytes_of(&news);
                assert!(nbytes <= PUSH_LIMIT && bytes.as_ptr().addr().is_multiple_of(64));
                assert_eq!(value(nbytes, idx as u8).downcast::<Opaque>().unwrap().0, bytes);
            }
        }
    }
}

#[tokio::test]
async fn wishes_and_their_withdrawal_keep_their_order() {
    let mut talk = talk().await;
    let mut expected = Vec::new();
    for idx in 0..200 {
        talk.watch.watch(&[item(idx), item(idx + 1)]).unwrap();
        talk.watch.unwatch(&[item(idx)]).unwrap();
        expected.push(FromWatcher::Watch(vec![item(idx), item(idx + 1)]));
        expected.push(FromWatcher::Unwatch(vec![item(idx)]));
    }
    for message in expected {
        assert_eq!(timeout(LONG, talk.asked.recv()).await.unwrap().unwrap(), message);
    }
}

#[tokio::test]
async fn many_results_of_many_threads_come_once_and_in_each_threads_order() {
    let mut talk = talk().await;
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let pusher = talk.pusher.clone();
            std::thread::spawn(move || {
                (0..500).for_each(|idx| pusher.push(item(thread * 1000 + idx), &value(u64::from(idx), thread as u8)).unwrap());
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..2000 {
        let (about, news) = talk.hear().await;
        let thread = about.task.idx.0 / 1000;
        let idx = &mut next[thread as usize];
        assert_eq!(about, item(thread * 1000 + *idx));
        assert_eq!(bytes_of(&news), value(u64::from(*idx), thread as u8).downcast::<Opaque>().unwrap().0);
        *idx += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(talk.heard.try_recv().is_err());
}

#[tokio::test]
async fn both_ends_hear_of_the_end() {
    let talk = talk().await;
    talk.pusher.stop();
    end(talk.making).await;
    assert_eq!(end(talk.watching).await, WatchError::Stream(StreamError::GivenUp(1)));
    assert_eq!(talk.watch.watch(&[item(9)]), Err(PushError::Over));
    assert_eq!(talk.pusher.push(item(9), &value(1, 1)), Err(PushError::Over));
    assert!(!talk.pair.client.is_closed(), "the connection serves others too");

    let talk = self::talk().await;
    talk.watching.abort();
    assert!(matches!(end(talk.making).await, WatchError::Stream(StreamError::GivenUp(1))));

    let talk = self::talk().await;
    talk.pair.server.close("killed");
    let ended = end(talk.watching).await;
    assert!(matches!(&ended, WatchError::Stream(StreamError::Lost(reason)) if reason.text == "killed"), "{ended}");
    assert!(matches!(end(talk.making).await, WatchError::Stream(StreamError::Lost(_))));
}

#[tokio::test]
async fn a_maker_may_refuse() {
    let pair = data_pair().await;
    let watch = Watch::default();
    watch.watch(&[item(0)]).unwrap();
    let (_heard, watching) = begin_watching(&pair, &watch);
    drop(visitor(&pair).await);
    assert!(matches!(end(watching).await, WatchError::Stream(StreamError::GivenUp(1))));
    assert!(!pair.client.is_closed());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_closed_with_the_reason() {
    let tuning = Tuning { stream_window: 64 << 10, send_window: 64 << 10, ..Tuning::default() };
    let pair = pair(Plane::Data, Role::Worker, Role::Worker, tuning).await;
    let (mut send, _receive_is_not_read) = pair.client.inner.open_bi().await.unwrap();
    let mut hello = Vec::new();
    codec::encode_frame(&[Request::Watch(HELLO)], 1000, &mut hello).unwrap();
    send.write_all(&hello).await.unwrap();
    let watcher = visitor(&pair).await;
    let pusher = Pusher::default();
    let making = tokio::spawn({
        let pusher = pusher.clone();
        async move { watcher.run(&pusher, |_| {}).await }
    });
    let big = value(PUSH_LIMIT, 0);
    let mut n_pushed = 0;
    while pusher.push(item(n_pushed), &big).is_ok() {
        n_pushed += 1;
        assert!(n_pushed < 2000, "the bound is a thousand of these");
        tokio::task::yield_now().await;
    }
    assert!(n_pushed >= 1000);
    end(making).await;
    let reason = timeout(LONG, pair.client.closed()).await.unwrap();
    assert!(reason.kind == CloseKind::Peer && reason.text.contains("does not keep up"), "{reason}");
}

#[tokio::test]
async fn senseless_wishes_close_the_connection() {
    for garbage in [&b"\x04\0\0\0\x01\xff\xff\xff"[..], b"\xff\xff\xff\xff\x01", b"\x02\0\0\0\x07\x01"] {
        let pair = data_pair().await;
        let (mut send, _receive) = pair.client.inner.open_bi().await.unwrap();
        let mut bytes = Vec::new();
        codec::encode_frame(&[Request::Watch(HELLO)], 1000, &mut bytes).unwrap();
        bytes.extend_from_slice(garbage);
        send.write_all(&bytes).await.unwrap();
        let watcher = visitor(&pair).await;
        let ended = timeout(LONG, watcher.run(&Pusher::default(), |_| {})).await.unwrap();
        assert!(matches!(ended, WatchError::Garbage(_)), "{ended}");
        assert_eq!(pair.client.closed().await.kind, CloseKind::Peer);
    }
}

#[tokio::test]
async fn only_workers_watch() {
    let pair = pair(Plane::Data, Role::Worker, Role::Client, Tuning::default()).await;
    let (door, mut visitors) = mpsc::unbounded_channel();
    tokio::spawn(serve_data(pair.server.clone(), Arc::new(Door(door))));
    let watch = Watch::default();
    let (_heard, watching) = begin_watching(&pair, &watch);
    let ended = end(watching).await;
    assert!(ended.to_string().contains("only workers watch"), "{ended}");
    assert!(visitors.try_recv().is_err());
}

/// What an honest maker sends for one small result and word of a big one, as bytes.
async fn honest_words() -> Vec<u8> {
    let pair = data_pair().await;
    let (mut send, mut receive) = pair.client.inner.open_bi().await.unwrap();
    let mut hello = Vec::new();
    codec::encode_frame(&[Request::Watch(HELLO)], 1000, &mut hello).unwrap();
    send.write_all(&hello).await.unwrap();
    let watcher = visitor(&pair).await;
    let pusher = Pusher::default();
    pusher.push(item(0), &value(300, 7)).unwrap();
    pusher.push(item(1), &value(PUSH_LIMIT + 1, 8)).unwrap();
    let making = tokio::spawn(async move { watcher.run(&pusher, |_| {}).await });
    let mut bytes = vec![0; 5];
    receive.read_exact(&mut bytes).await.unwrap();
    let nbytes = codec::frame_nbytes(&bytes, 1000).unwrap().unwrap();
    bytes.resize(nbytes + 300, 0);
    receive.read_exact(&mut bytes[5..]).await.unwrap();
    making.abort();
    bytes
}

/// What a watcher hears when the maker sends exactly these bytes and then finishes the stream.
async fn hear_of(words: &[u8]) -> (Vec<(PartRequest, News)>, WatchError, bool) {
    let pair = data_pair().await;
    let watch = Watch::default();
    let (mut heard, watching) = begin_watching(&pair, &watch);
    let (mut send, _receive) = pair.server.inner.accept_bi().await.unwrap();
    send.write_all(words).await.unwrap();
    send.finish().unwrap();
    let ended = end(watching).await;
    let mut all = Vec::new();
    while let Ok(news) = heard.try_recv() {
        all.push(news);
    }
    (all, ended, pair.client.is_closed())
}

#[tokio::test]
async fn a_flipped_bit_or_a_cut_never_makes_a_wrong_result() {
    let words = honest_words().await;
    let (whole, ended, is_closed) = hear_of(&words).await;
    assert!(matches!(ended, WatchError::Stream(_)) && !is_closed, "{ended}");
    assert_eq!(whole.len(), 2);
    let right = bytes_of(&whole[0].1);
    let mut n_fetched_instead = 0;
    for at in (0..words.len()).step_by(5) {
        let mut flipped = words.clone();
        flipped[at] ^= 1 << (at % 8);
        let (heard, ..) = hear_of(&flipped).await;
        for (about, news) in &heard {
            if matches!(news, News::Pushed(_)) {
                assert_eq!((*about, bytes_of(news)), (item(0), right.clone()), "flipped at {at}");
            } else {
                n_fetched_instead += u32::from(*about == item(0));
            }
        }
        let (heard, ..) = hear_of(&words[..at]).await;
        assert!(heard.len() < 2, "cut at {at}");
    }
    assert!(n_fetched_instead > 10, "damaged content is fetched instead: {n_fetched_instead}");
}

#[tokio::test]
async fn a_maker_that_makes_no_sense_is_closed() {
    let mut too_long = Vec::new();
    // A result described as longer than any that is sent unasked, however little of it comes.
    let encoded = value(PUSH_LIMIT + 1, 0).encode().unwrap();
    crate::watch::encode_pushed_for_test(&item(0), &encoded, &mut too_long);
    for words in [&b"\x04\0\0\0\x01\xff\xff\xff"[..], b"\xff\xff\xff\xff\x01", &too_long] {
        let (heard, ended, is_closed) = hear_of(words).await;
        assert!(heard.is_empty() && is_closed, "{ended}");
        assert!(matches!(ended, WatchError::Garbage(_)), "{ended}");
    }
}
