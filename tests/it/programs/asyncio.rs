//! Event loops of python: several processes at one listener, clients, timers, children with pipes, signals through a descriptor.

use super::interpreters::RESTLESS;
use super::servers::{client, own_server, serves};
use crate::support::{Room, Victim, isolated, require_root, wait};
