//! Sockets.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::socket::tcp::{Connection, Ended, Role, Tcp};
use crate::image::model::socket::unix::Unix;
use crate::image::model::socket::{Socket, State};

/// Most bytes of an option.
const VALUE_MAX: usize = 64 << 10;

/// Bytes of `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;

/// Of RFC 7323.
const SCALE_MAX: u8 = 14;

/// Bytes of `sun_path`.
const NAME_MAX: usize = 108;

pub fn socket(socket: &Socket) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let sane = socket.options.iter().all(|option| option.value.len() <= VALUE_MAX);
    ensure(sane, object, "has an impossible option")?;
    match &socket.state {
        State::Unix(Unix { name }) => ensure(name.len() <= NAME_MAX, object, "has an impossible name"),
        State::Tcp(state) => tcp(socket, state),
    }
}

fn tcp(socket: &Socket, Tcp { local, role }: &Tcp) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let address = |address: &[u8]| ensure(address.len() <= ADDRESS_MAX, object, "has an impossible address");
    address(local)?;
    match role {
        Role::Unconnected | Role::Listening { backlog: _ } => Ok(()),
        Role::Ended(Ended { unread: _, failed: _ }) => Ok(()),
        Role::Connecting { peer } => address(peer),
        Role::Connected(connection) => {
            let Connection { peer, inside: _, incoming: _, outgoing, window: _, agreed } = &**connection;
            address(peer)?;
            let sane = outgoing.unsent as usize <= outgoing.bytes.len();
            ensure(sane, object, "has more bytes to send than bytes")?;
            let sane = agreed.scales.is_none_or(|(sent, received)| sent <= SCALE_MAX && received <= SCALE_MAX);
            ensure(sane, object, "has an impossible window scale")
        }
    }
}
