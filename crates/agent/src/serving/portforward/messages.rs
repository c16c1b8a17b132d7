//! Forwarded ports as messages of a websocket, in the protocol `v4.channel.k8s.io`: how clients in Python and JavaScript ask.
//! Each port that is asked for has one connection and two channels, an even one for data and the next for errors. The first
//! message of each is the port itself.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{Target, connect};
use crate::limits::{SESSION_QUEUE, SESSION_READ_BYTES};
use crate::serving::websocket::{Content, Socket, content, farewell, message};

pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

/// What the numbers of channels have room for.
pub(crate) const PORTS_MAX: usize = 128;

/// Serves the ports until the client goes or all connections have ended.
pub(super) async fn forward(socket: Socket, ports: Vec<u16>, target: Target) {
    let (mut sink, mut stream) = socket.split();
    let (say, mut outbox) = mpsc::channel(SESSION_QUEUE);
    let mut inputs = Vec::with_capacity(ports.len());
    let mut forwarding = JoinSet::new();
    for (data, port) in (0u8..).step_by(2).zip(ports) {
        let (input, pieces) = mpsc::channel(SESSION_QUEUE);
        inputs.push(input);
        forwarding.spawn(serve(target.clone(), port, data, say.clone(), pieces));
    }
    drop(say);
    let writing = async {
        while let Some(message) = outbox.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        farewell(&mut sink).await;
    };
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            match content(message) {
                Content::Bytes(bytes) => {
                    if let Some((port, piece)) = addressed(&bytes)
                        && let Some(input) = inputs.get(port)
                    {
                        // Where the pod has ended nobody listens.
                        let _ = input.send(piece).await;
                    }
                }
                Content::End => break,
                Content::Nothing => {}
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    forwarding.shutdown().await;
}

/// Which port's data a message is, and the data. Nothing is to be said on the channels for errors.
pub(crate) fn addressed(message: &Bytes) -> Option<(usize, Bytes)> {
    let channel = usize::from(*message.first()?);
    (channel % 2 == 0 && message.len() > 1).then(|| (channel / 2, message.slice(1..)))
}

/// One connection, to its end. What the client still says when the pod has ended is not heard.
async fn serve(
    target: Target,
    port: u16,
    data: u8,
    say: mpsc::Sender<Message>,
    mut input: mpsc::Receiver<Bytes>,
) {
    let errors = data + 1;
    for channel in [data, errors] {
        if say.send(message(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let pod = match connect(target.netns, port).await {
        Ok(pod) => pod,
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {}: {why}", target.name);
            let _ = say.send(message(errors, text.as_bytes())).await;
            return;
        }
    };
    let (mut from, mut to) = pod.into_split();
    let answers = async {
        let mut read = BytesMut::with_capacity(SESSION_READ_BYTES);
        while let Ok(1..) = from.read_buf(&mut read).await {
            if say.send(message(data, &read)).await.is_err() {
                return;
            }
            read.clear();
        }
    };
    let asks = async {
        while let Some(piece) = input.recv().await {
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answers => {}
        () = asks => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_to_the_port_of_its_channel() {
        let to = |bytes: &'static [u8]| addressed(&Bytes::from_static(bytes));
        assert_eq!(to(b"\0GET"), Some((0, Bytes::from_static(b"GET"))));
        assert_eq!(to(b"\x04x"), Some((2, Bytes::from_static(b"x"))));
        assert_eq!(to(&[254, 1]), Some((PORTS_MAX - 1, Bytes::from_static(b"\x01"))));
        for nonsense in [&b""[..], b"\0", b"\x01x"] {
            assert_eq!(to(nonsense), None, "{nonsense:?}");
        }
    }
}
