//! Sockets.

use super::ensure;
use crate::image::error::Error;
use crate::image::model::socket::unix::Unix;
use crate::image::model::socket::{Socket, State};

/// Most bytes of an option.
const VALUE_MAX: usize = 64 << 10;

/// Bytes of `sun_path`.
const NAME_MAX: usize = 108;

pub fn socket(socket: &Socket) -> Result<(), Error> {
    let object = || format!("socket {}", socket.id);
    let sane = socket.options.iter().all(|option| option.value.len() <= VALUE_MAX);
    ensure(sane, object, "has an impossible option")?;
    match &socket.state {
        State::Unix(Unix { name }) => ensure(name.len() <= NAME_MAX, object, "has an impossible name"),
    }
}
