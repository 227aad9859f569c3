//! Conversations with peers about results that are being made: who watches here, and whom this worker watches.
//!
//! All of one registration: they begin after its welcome and end with it. The peers' workers may have registered anew
//! meanwhile, so a conversation names both ids and the epoch, and one that does not fit is refused.
//!
//! **What the machine may rely on.** A maker is reported lost once for each conversation with it, after its last news; what is
//! asked for later begins another one. A watcher is reported gone once for each of its conversations, after its last words
//! and before the first of its next conversation.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rask_comm::limits::MAX_WATCHES;
use rask_comm::peers::Peers;
use rask_comm::{FromWatcher, Grant, News, PartRequest, PushError, Pusher, SecretKey, Watch, WatchHello, Watcher, WorkerKeys};
use rask_graphs::{Epoch, Registry, Value, WorkerId};
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::network::CONNECT_LIMIT;
use super::traffic::Meters;
use crate::exec::{WatchOrder, WorkerCore};
use crate::machine::FetchItem;

/// A registration with the scheduler, as peers know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) epoch: Epoch,
    pub(super) worker: WorkerId,
}

/// A peer that watches here, or has done so.
#[derive(Default)]
struct Visitor {
    /// The way to it, while it watches.
    pusher: Option<Pusher>,
    /// Held by its conversation, so that the next one waits for the end of the one before.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// All such conversations of one registration.
pub(super) struct Watching {
    runtime: Handle,
    peers: Peers,
    registry: Arc<Registry>,
    meters: Arc<Meters>,
    me: OnceLock<(Identity, WorkerKeys)>,
    makers: Mutex<FxHashMap<WorkerId, Watch>>,
    visitors: Mutex<FxHashMap<WorkerId, Visitor>>,
    /// `None` once the registration has ended.
    conversations: Mutex<Option<JoinSet<()>>>,
}

impl Watching {
    pub(super) fn new(runtime: Handle, peers: Peers, registry: Arc<Registry>, meters: Arc<Meters>) -> Self {
        let conversations = Mutex::new(Some(JoinSet::new()));
        Self {
            runtime,
            peers,
            registry,
            meters,
            me: OnceLock::new(),
            makers: Mutex::default(),
            visitors: Mutex::default(),
            conversations,
        }
    }

    /// The scheduler has welcomed this registration.
    pub(super) fn begin(&self, me: Identity, keys: WorkerKeys) {
        let _ = self.me.set((me, keys));
    }

    /// What opens results at peers.
    pub(super) fn grant_key(&self) -> SecretKey {
        self.me.get().map(|(_, keys)| keys.grants).unwrap_or_default()
    }

    /// Cut all conversations off, and begin none any more.
    pub(super) fn end(&self) {
        let conversations = self.conversations.lock().take();
        drop(conversations);
    }

    fn spawn(&self, conversation: impl Future<Output = ()> + Send + 'static) {
        if let Some(conversations) = self.conversations.lock().as_mut() {
            while conversations.try_join_next().is_some() {}
            conversations.spawn_on(conversation, &self.runtime);
        }
    }

    /// Watch at a peer, or stop; see [`crate::exec::Fetcher::watch`].
    pub(super) fn watch(self: &Arc<Self>, core: &WorkerCore, order: WatchOrder) {
        let items: Vec<PartRequest> = order.items.iter().map(request).collect();
        let mut makers = self.makers.lock();
        let current = makers.get(&order.from);
        let Some((address, name, pass)) = order.begin else {
            // A conversation that has ended has nothing to be taken back.
            let _ = current.map(|watch| watch.unwatch(&items));
            return;
        };
        if current.is_some_and(|watch| watch.watch(&items).is_ok()) {
            return;
        }
        let watch = Watch::default();
        if let Err(error) = watch.watch(&items) {
            tracing::warn!(peer = %order.from, %error, "cannot watch");
        }
        makers.insert(order.from, watch.clone());
        drop(makers);
        let peer = (order.from, address, name, pass);
        self.spawn(Arc::clone(self).listen_to(core.clone(), peer, watch));
    }

    async fn listen_to(
        self: Arc<Self>,
        core: WorkerCore,
        (from, address, name, pass): (WorkerId, SocketAddr, String, Grant),
        watch: Watch,
    ) {
        let reason = match (self.me.get(), timeout(CONNECT_LIMIT, self.peers.get(address, &name)).await) {
            (None, _) => "this worker is not registered".to_owned(),
            (_, Err(_elapsed)) => "no answer".to_owned(),
            (_, Ok(Err(error))) => error.to_string(),
            (Some((me, _)), Ok(Ok(connection))) => {
                let hello = WatchHello { epoch: me.epoch, watcher: me.worker, maker: from, pass };
                let on_news = |item: PartRequest, news| match news {
                    News::Pushed(fetched) => {
                        self.meters.came(from, fetched.nbytes);
                        core.pushed(from, fetch_item(&item), fetched.value);
                    }
                    News::Made { nbytes } => core.made(from, fetch_item(&item), nbytes),
                };
                watch.run(&connection, hello, &self.registry, on_news).await.to_string()
            }
        };
        tracing::debug!(peer = %from, %address, reason, "a watch has ended");
        {
            // What is asked for from here on begins another conversation, whose news come after the word of this one's end
            // or are taken for news of things that nobody wants.
            let mut makers = self.makers.lock();
            if makers.get(&from).is_some_and(|current| current.is(&watch)) {
                makers.remove(&from);
            }
        }
        core.watch_lost(from);
    }

    /// Whether this is the registration that it says it is, and was told of this worker by the scheduler.
    pub(super) fn admits(&self, watcher: &Watcher) -> bool {
        let WatchHello { watcher: peer, pass, .. } = watcher.hello();
        self.me.get().is_some_and(|(_, keys)| keys.passes.admits(peer, watcher.peer().key, &pass))
    }

    /// A peer wants to watch here.
    pub(super) fn receive(self: &Arc<Self>, core: WorkerCore, watcher: Watcher) {
        self.spawn(Arc::clone(self).converse(core, watcher));
    }

    async fn converse(self: Arc<Self>, core: WorkerCore, watcher: Watcher) {
        let peer = watcher.hello().watcher;
        let pusher = Pusher::default();
        let (turn, older) = {
            let mut visitors = self.visitors.lock();
            let visitor = visitors.entry(peer).or_default();
            (Arc::clone(&visitor.turn), visitor.pusher.replace(pusher.clone()))
        };
        if let Some(older) = older {
            older.stop();
        }
        let turn = turn.lock().await;
        let ended = watcher.run(&pusher, |message| match message {
            FromWatcher::Watch(items) => {
                core.peer_watches(peer, items.iter().map(fetch_item).collect());
                if core.inspect(|machine| machine.watches_too_much(peer)) {
                    tracing::warn!(%peer, "a peer watches for more than {MAX_WATCHES} results: its conversation ends");
                    pusher.stop();
                }
            }
            FromWatcher::Unwatch(items) => core.peer_unwatches(peer, items.iter().map(fetch_item).collect()),
        });
        let reason = ended.await;
        tracing::debug!(%peer, %reason, "a peer does not watch here any more");
        if let Some(visitor) = self.visitors.lock().get_mut(&peer)
            && visitor.pusher.as_ref().is_some_and(|current| current.is(&pusher))
        {
            visitor.pusher = None;
        }
        core.peer_gone(peer);
        drop(turn);
    }

    /// Send a result to a peer that watches for it; see [`crate::exec::Fetcher::push`].
    pub(super) fn push(&self, to: WorkerId, item: &FetchItem, value: &Value) {
        self.meters.goes(value.nbytes());
        self.tell(to, |pusher| pusher.push(request(item), value));
    }

    /// Send word of a result to a peer that watches for it; see [`crate::exec::Fetcher::announce`].
    pub(super) fn announce(&self, to: WorkerId, item: &FetchItem, nbytes: u64) {
        self.tell(to, |pusher| pusher.announce(request(item), nbytes));
    }

    fn tell(&self, to: WorkerId, send: impl FnOnce(Pusher) -> Result<(), PushError>) {
        let pusher = self.visitors.lock().get(&to).and_then(|visitor| visitor.pusher.clone());
        // The end of its conversation, and nothing else, tells the core that a watcher is gone: told from here, the word could
        // come after the first words of its next conversation.
        match pusher.map(send) {
            None => tracing::debug!(peer = %to, "a peer that watched is gone"),
            Some(Err(error)) => tracing::debug!(peer = %to, %error, "a result has nowhere to go"),
            Some(Ok(())) => {}
        }
    }
}

pub(super) fn request(item: &FetchItem) -> PartRequest {
    PartRequest { task: item.task, attempt: item.attempt, part: item.part }
}

pub(super) fn fetch_item(item: &PartRequest) -> FetchItem {
    FetchItem { task: item.task, attempt: item.attempt, part: item.part }
}
