//! Real, unprepared programs: start, work, dump, kill, restore, go on; and dump, go on, restore later.

mod bus;
mod compressors;
mod desktop;
mod dialogue;
mod fio;
mod interpreters;
mod mariadb;
mod mpi;
mod postgres;
mod python;
mod servers;
mod sqlite;
mod stress;
mod tcpdump;
mod trees;
