//! Control: the writes of users, executed by the leader one after the other.

pub mod request;
