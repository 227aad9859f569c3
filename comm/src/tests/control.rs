//! Control streams and outboxes: order, sizes, and peers that send garbage or do not read.

use std::time::Duration;

use rask_graphs::{Epoch, TaskId, TaskIdx, WorkerId};

use super::{Pair, pair, worker_pair};
use crate::codec::FRAME_LIMIT;
use crate::message::{FromWorker, ToWorker, WorkerHello};
use crate::{
    CloseKind, ControlReceiver, ControlSender, Outbox, OutboxError, Plane, PushError, ReceiveError, Role, SendError, StreamError,
    Tuning,
};

type WorkerEnd = (ControlSender<FromWorker>, ControlReceiver<ToWorker>);
type SchedulerEnd = (ControlSender<ToWorker>, ControlReceiver<FromWorker>);

fn hello(name: &str) -> WorkerHello {
    WorkerHello {
        version: crate::message::PROTOCOL_VERSION,
        name: name.to_owned(),
        n_slots: 2,
        memory_limit: 1 << 30,
        resources: vec![("gpu".to_owned(), 1.0)],
        data_address: "127.0.0.1:1".parse().unwrap(),
        host: crate::host_identity(),
        registry_fingerprint: 7,
    }
}

/// Both ends of a control stream, after the hello.
async fn conversation(pair: &Pair) -> (WorkerEnd, SchedulerEnd) {
    let mut worker: WorkerEnd = pair.client.open_control().await.unwrap();
    worker.0.send_hello(&hello("w")).await.unwrap();
    let mut scheduler: SchedulerEnd = pair.server.accept_control().await.unwrap();
    assert_eq!(scheduler.1.recv_hello::<WorkerHello>().await.unwrap(), hello("w"));
    (worker, scheduler)
}

fn lost(idx: u32) -> FromWorker {
    FromWorker::Lost { task: TaskId::new(rask_graphs::GraphId(1), TaskIdx(idx)) }
}

#[tokio::test]
async fn frames_keep_their_order_and_borders() {
    let pair = worker_pair().await;
    let ((mut worker, _), (_scheduler, mut from_worker)) = conversation(&pair).await;
    worker.send(&[lost(1), lost(2)]).await.unwrap();
    worker.send(&[FromWorker::Retiring]).await.unwrap();
    assert_eq!(from_worker.recv().await.unwrap(), Some(vec![lost(1), lost(2)]));
    assert_eq!(from_worker.recv().await.unwrap(), Some(vec![FromWorker::Retiring]));
    let (finished, end) = tokio::join!(worker.finish(), from_worker.recv());
    assert_eq!((finished, end), (Ok(()), Ok(None)));
}

#[tokio::test]
async fn a_turn_longer_than_a_frame_is_cut_at_messages() {
    let pair = worker_pair().await;
    let ((mut worker, _), (_scheduler, mut from_worker)) = conversation(&pair).await;
    let failure = |nbytes: usize| FromWorker::Failed {
        task: TaskId::new(rask_graphs::GraphId(1), TaskIdx(1)),
        attempt: rask_graphs::Attempt(1),
        failure: crate::message::RunFailure {
            kind: crate::message::FailureKind::Operator,
            operator: "o".to_owned(),
            message: "m".repeat(nbytes),
        },
    };
    let messages: Vec<FromWorker> = (0..5).map(|_| failure(FRAME_LIMIT / 2 - 1000)).collect();
    let receive = async {
        let mut received = Vec::new();
        while received.len() < messages.len() {
            received.extend(from_worker.recv().await.unwrap().unwrap());
        }
        received
    };
    let (sent, received) = tokio::join!(worker.send(&messages), receive);
    sent.unwrap();
    assert!(received == messages);
    let too_long = worker.send(&[failure(FRAME_LIMIT)]).await;
    assert!(matches!(too_long, Err(SendError::Codec(_))), "{too_long:?}");
}

#[tokio::test]
async fn a_conversation_cut_short_is_not_a_finished_one() {
    let pair = worker_pair().await;
    let ((worker, _), (_scheduler, mut from_worker)) = conversation(&pair).await;
    drop(worker);
    let ended = from_worker.recv().await;
    assert_eq!(ended, Err(ReceiveError::Stream(StreamError::GivenUp(1))));
    let again = from_worker.recv().await;
    assert_eq!(again, Err(ReceiveError::Stream(StreamError::GivenUp(1))), "nor does it look finished the second time");
}

#[tokio::test]
async fn garbage_closes_one_peer_and_no_other() {
    let cases: [&[u8]; 5] = [
        b"\xff\xff\xff\xffx",              // Four gigabytes are announced.
        b"\x05\0\0\0\x09abcd",             // Another frame version.
        b"\x05\0\0\0\x01\xfe\xfe\xfe\xfe", // No such list.
        b"\x03\0\0\0\x01\x01\x63",         // No such message.
        b"\0\0\0\0\0",                     // A frame of nothing.
    ];
    for garbage in cases {
        let pair = worker_pair().await;
        let (mut send, _receive) = pair.client.inner.open_bi().await.unwrap();
        send.write_all(garbage).await.unwrap();
        let (_sender, mut receiver): SchedulerEnd = pair.server.accept_control().await.unwrap();
        let received = receiver.recv().await;
        let Err(ReceiveError::Garbage(error)) = received else { panic!("{garbage:?}: {received:?}") };
        pair.server.close_misbehaved(&error.to_string());
        assert_eq!(pair.client.closed().await.text, error.to_string());
        // The endpoint that was sent garbage still takes others.
        let address = pair.server_endpoint.local_addr().unwrap();
        let again = pair.client_endpoint.connect(address, Plane::Worker, crate::ExpectedPeer::any(Role::Scheduler)).await;
        assert!(again.is_ok());
    }
}

#[tokio::test]
async fn a_frame_cut_short_is_no_frame() {
    let pair = worker_pair().await;
    let (mut send, _receive) = pair.client.inner.open_bi().await.unwrap();
    send.write_all(&[200, 0, 0, 0, 1, 5, 5]).await.unwrap();
    send.finish().unwrap();
    let (_sender, mut receiver): SchedulerEnd = pair.server.accept_control().await.unwrap();
    assert_eq!(receiver.recv().await, Err(ReceiveError::Stream(StreamError::EndedEarly)));
}

#[tokio::test]
async fn receiving_can_be_interrupted_anywhere() {
    let pair = worker_pair().await;
    let ((mut worker, _), (_scheduler, mut from_worker)) = conversation(&pair).await;
    let sending = tokio::spawn(async move {
        for idx in 0..2000 {
            worker.send(&[lost(idx)]).await.unwrap();
            if idx % 50 == 0 {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
        worker.finish().await
    });
    let mut received = Vec::new();
    loop {
        tokio::select! {
            biased;
            messages = from_worker.recv() => match messages.unwrap() {
                Some(messages) => received.extend(messages),
                None => break,
            },
            () = tokio::time::sleep(Duration::from_micros(100)) => {}
        }
    }
    sending.await.unwrap().unwrap();
    assert!(received.iter().eq((0..2000).map(lost).collect::<Vec<_>>().iter()));
}

#[tokio::test]
async fn an_outbox_batches_what_waits_and_ends_well() {
    let pair = worker_pair().await;
    let ((worker, _), (_scheduler, mut from_worker)) = conversation(&pair).await;
    let outbox: Outbox<FromWorker> = Outbox::default();
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let outbox = outbox.clone();
            std::thread::spawn(move || (0..500).for_each(|idx| outbox.push(vec![lost(thread * 1000 + idx)]).unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    outbox.finish();
    let receive = async {
        let mut frames = Vec::new();
        while let Some(messages) = from_worker.recv().await.unwrap() {
            frames.push(messages);
        }
        frames
    };
    let (written, frames) = tokio::join!(outbox.run(worker), receive);
    assert_eq!(written, Ok(()));
    assert_eq!(frames.len(), 1, "all that waited goes in one frame");
    for thread in 0..4 {
        let own = frames[0].iter().filter(|message| (0..500).any(|idx| **message == lost(thread * 1000 + idx)));
        assert!(own.eq((0..500).map(|idx| lost(thread * 1000 + idx)).collect::<Vec<_>>().iter()), "each thread's order is kept");
    }
    assert_eq!(outbox.push(vec![lost(0)]), Err(PushError::Over));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_with_the_reason() {
    let tuning = Tuning { stream_window: 64 << 10, send_window: 64 << 10, ..Tuning::default() };
    let pair = pair(Plane::Worker, Role::Scheduler, Role::Worker, tuning).await;
    let ((worker, _), _scheduler_does_not_read) = conversation(&pair).await;
    let outbox: Outbox<FromWorker> = Outbox::new(4 << 20);
    let writer = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.run(worker).await }
    });
    let batch: Vec<FromWorker> = (0..10_000).map(lost).collect();
    let mut pushed = Ok(());
    for _ in 0..1000 {
        pushed = outbox.push(batch.clone());
        if pushed.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(pushed, Err(PushError::Overflow { limit: 4 << 20 }));
    assert_eq!(writer.await.unwrap(), Err(OutboxError::Overflow { limit: 4 << 20 }));
    let reason = pair.server.closed().await;
    assert_eq!(reason.kind, CloseKind::Peer);
    assert!(reason.text.contains("keep up"), "{reason}");
}

#[tokio::test]
async fn the_writer_ends_with_its_connection() {
    let pair = worker_pair().await;
    let ((worker, _), _scheduler) = conversation(&pair).await;
    let outbox: Outbox<FromWorker> = Outbox::default();
    let closing = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        pair.server.close("enough");
    };
    let (written, ()) = tokio::join!(outbox.run(worker), closing);
    let Err(OutboxError::Send(SendError::Stream(StreamError::Lost(reason)))) = written else { panic!("{written:?}") };
    assert_eq!(reason.text, "enough");
    assert_eq!(outbox.push(vec![lost(1)]), Err(PushError::Over));
}

#[test]
fn everything_works_on_several_threads_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pair = worker_pair().await;
        let ((_worker, mut to_worker), (mut scheduler, _)) = conversation(&pair).await;
        let welcome = ToWorker::Welcome { worker: WorkerId(1), epoch: Epoch(1), keys: crate::WorkerKeys::default() };
        scheduler.send(std::slice::from_ref(&welcome)).await.unwrap();
        assert_eq!(to_worker.recv().await.unwrap(), Some(vec![welcome]));
    });
}
