//! QUIC and socket settings, each with the reason for it.
//!
//! quinn's defaults are made for the internet: a third of a second assumed round trip, windows for 100 Mbit/s, dead peers
//! noticed after 30 seconds. A cluster is near, fast and wants to know of a death within seconds. Nothing here knows what
//! the connections are for.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::Role;
use crate::limits::{
    CLIENT_SEND_WINDOW_NBYTES, CONTROL_STREAMS, CONTROL_WINDOW_NBYTES, STRANGER_STREAMS, STRANGER_WINDOW_NBYTES,
};
use crate::plane::Plane;

/// Largest UDP payload an endpoint takes in. Room for what is sent; it costs 13 MB of address space an endpoint.
const LARGEST_PAYLOAD: u16 = 6550;

/// Largest UDP payload that is sent. A batch of ten must stay below 65,507 bytes: the kernel refuses a larger segmented send, and the
/// refusal looks like lost packets.
const LARGEST_BATCHED_PAYLOAD: u16 = 6500;

/// How urgent a stream is; the most urgent ones with something to say are sent first. What people wait for is short, and a result
/// that is long makes short ones late by no more than what has been handed to the network of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Urgency {
    /// Long results.
    Bulk,
    /// Requests, and answers that are short so far.
    Short,
    /// Conversations: the scheduler's, and word of what has been made.
    Control,
}

impl Urgency {
    pub(crate) fn set(self, stream: &quinn::SendStream) {
        // Refused only by a stream that has ended.
        let _ = stream.set_priority(self as i32);
    }
}

/// What can be set; the defaults suit a cluster.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// A peer that is silent for this long is dead.
    pub idle_timeout: Duration,
    /// Silence after which a sign of life is sent.
    pub keep_alive: Duration,
    /// How long connecting may take in all.
    pub connect_timeout: Duration,
    /// Connections an endpoint holds at once, those being made included.
    pub max_connections: usize,
    /// Handshakes an endpoint works on at once; above a quarter of it, addresses must be proven first, and what takes long is
    /// ended.
    pub max_handshakes: usize,
    /// Streams a peer may have open at once.
    pub max_streams: u32,
    /// Bytes a peer may send on a stream before this side has read them.
    pub stream_window: u32,
    /// The same where both ends are loopback addresses. What is on the way there is in memory, and the less of it, the more of
    /// it is still in the processor's cache when it is read.
    pub loopback_stream_window: u32,
    /// Bytes a peer may send on all streams of a connection before this side has read them.
    pub connection_window: u32,
    /// Bytes this side holds back for a peer that has not acknowledged them.
    pub send_window: u64,
    /// Socket buffers asked of the kernel, in bytes each way.
    pub socket_buffer_nbytes: usize,
    /// Packets on connections where both ends are loopback addresses.
    pub loopback: PacketProfile,
}

/// How large packets are, and whether the kernel cuts batches of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketProfile {
    /// UDP payload in bytes, at most 16,383 (a length field has two bytes).
    pub payload: u16,
    /// Whether batches are handed to the kernel as one segmented send; then ten payloads must stay below 65,507 bytes.
    pub is_segmented: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            max_connections: 4096,
            max_handshakes: 256,
            max_streams: 256,
            // Two requests are on the way to a peer, and what both may bring leaves room in the connection's windows for others.
            stream_window: 24 << 20,
            loopback_stream_window: 1 << 20,
            connection_window: 64 << 20,
            send_window: 64 << 20,
            socket_buffer_nbytes: 8 << 20,
            loopback: PacketProfile { payload: LARGEST_BATCHED_PAYLOAD, is_segmented: true },
        }
    }
}

impl Tuning {
    /// Settings of one connection.
    pub(crate) fn transport(&self, is_loopback: bool) -> quinn::TransportConfig {
        let mut transport = quinn::TransportConfig::default();
        let mut cubic = quinn::congestion::CubicConfig::default();
        // Ten packets is a start for a modem; a cluster's link takes a mebibyte in a round trip.
        cubic.initial_window(1 << 20);
        let mut acks = quinn::AckFrequencyConfig::default();
        // Half of the work of a fast transfer is acknowledgements; the delay bounds what a lost last packet costs.
        acks.ack_eliciting_threshold(10_u32.into()).max_ack_delay(Some(Duration::from_millis(5)));
        transport
            .max_idle_timeout(quinn::IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(Duration::from_millis(if is_loopback { 1 } else { 5 }))
            .stream_receive_window(if is_loopback { self.loopback_stream_window } else { self.stream_window }.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window)
            .max_concurrent_bidi_streams(self.max_streams.into())
            .max_concurrent_uni_streams(0_u32.into())
            // One result after another: a task can start when its first inputs are whole.
            .send_fairness(false)
            .ack_frequency_config(Some(acks))
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(Arc::new(cubic));
        // How large packets may be elsewhere is found out: 1,472 bytes on most networks, and on those with large frames what still
        // goes in batches. A path whose limit falls later is noticed by what gets lost.
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(LARGEST_BATCHED_PAYLOAD);
        transport.mtu_discovery_config(Some(discovery));
        if is_loopback {
            transport
                .initial_mtu(self.loopback.payload)
                .min_mtu(self.loopback.payload)
                .mtu_discovery_config(None)
                .enable_segmentation_offload(self.loopback.is_segmented);
        }
        transport
    }

    /// Settings of a connection from somebody who has not been let in: as any, but for what may be on the way.
    pub(crate) fn stranger(&self, is_loopback: bool) -> quinn::TransportConfig {
        let mut transport = self.transport(is_loopback);
        transport
            .receive_window(STRANGER_WINDOW_NBYTES.min(self.connection_window).into())
            .max_concurrent_bidi_streams(STRANGER_STREAMS.min(self.max_streams).into());
        transport
    }

    /// The peer has been let in on `plane`: more may be on the way.
    pub(crate) fn admit(&self, connection: &quinn::Connection, plane: Plane, role: Role) {
        let (window, n_streams) = match plane {
            Plane::Data => (self.connection_window, self.max_streams),
            Plane::Worker | Plane::Client => {
                (CONTROL_WINDOW_NBYTES.min(self.connection_window), CONTROL_STREAMS.min(self.max_streams))
            }
            Plane::Join => return,
        };
        if plane == Plane::Data && role != Role::Worker {
            connection.set_send_window(self.send_window.min(CLIENT_SEND_WINDOW_NBYTES));
        }
        connection.set_receive_window(window.into());
        connection.set_max_concurrent_bi_streams(n_streams.into());
    }

    pub(crate) fn endpoint(&self) -> Result<quinn::EndpointConfig, String> {
        let mut config = quinn::EndpointConfig::default();
        let payload = LARGEST_PAYLOAD.max(self.loopback.payload);
        config.max_udp_payload_size(payload).map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// Socket buffers as the kernel granted them, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SocketBuffers {
    /// What was asked for, each way.
    pub asked: usize,
    /// For packets coming in.
    pub receive: usize,
    /// For packets going out.
    pub send: usize,
}

impl SocketBuffers {
    /// Whether the kernel gave markedly less than asked; transfers between hosts then lose packets under load.
    #[must_use]
    pub fn are_small(&self) -> bool {
        self.receive < self.asked / 2 || self.send < self.asked / 2
    }

    /// One line for the log at start.
    #[must_use]
    pub fn report(&self) -> String {
        let kib = |nbytes: usize| nbytes >> 10;
        let granted = format!("UDP socket buffers: {} KiB in, {} KiB out", kib(self.receive), kib(self.send));
        if self.are_small() {
            format!(
                "{granted}, {} KiB asked; raise net.core.rmem_max and net.core.wmem_max for faster transfers",
                kib(self.asked)
            )
        } else {
            granted
        }
    }
}

/// A bound UDP socket with buffers as large as the kernel allows.
pub(crate) fn bind_socket(address: SocketAddr, buffer_nbytes: usize) -> io::Result<(UdpSocket, SocketBuffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel clamps silently and doubles what it stores, so ask, look, and halve.
    let _ = socket.set_recv_buffer_size(buffer_nbytes);
    let _ = socket.set_send_buffer_size(buffer_nbytes);
    let buffers =
        SocketBuffers { asked: buffer_nbytes, receive: socket.recv_buffer_size()? / 2, send: socket.send_buffer_size()? / 2 };
    socket.bind(&address.into())?;
    Ok((socket.into(), buffers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_batches_fit_one_segmented_send() {
        let profile = Tuning::default().loopback;
        assert!(profile.is_segmented && u32::from(profile.payload) * 10 <= 65_507);
        assert!(profile.payload <= LARGEST_PAYLOAD);
    }

    #[test]
    fn the_kernel_is_asked_and_believed() {
        let (socket, buffers) = bind_socket("127.0.0.1:0".parse().unwrap(), 64 << 10).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        assert_eq!((buffers.receive, buffers.send), (64 << 10, 64 << 10));
        assert!(!buffers.are_small() && !buffers.report().contains("rmem_max"));
        let small = SocketBuffers { asked: 8 << 20, receive: 212_992, send: 212_992 };
        assert!(small.are_small() && small.report().contains("rmem_max"));
    }
}
