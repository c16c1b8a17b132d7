//! The numbers of `nf_tables` on the wire, from `linux/netfilter/nf_tables.h`.

pub(super) const SUBSYS: u16 = 10;
pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;
/// `struct nfgenmsg`: family, version, resource.
pub(super) const FIXED: usize = 4;

pub(super) const fn fixed(family: u8) -> [u8; FIXED] {
    [family, 0, 0, 0]
}

pub(super) mod msg {
    pub(in super::super) const NEWTABLE: u16 = 0;
    pub(in super::super) const GETTABLE: u16 = 1;
    pub(in super::super) const DELTABLE: u16 = 2;
    pub(in super::super) const NEWCHAIN: u16 = 3;
    pub(in super::super) const GETCHAIN: u16 = 4;
    pub(in super::super) const DELCHAIN: u16 = 5;
    pub(in super::super) const NEWRULE: u16 = 6;
    pub(in super::super) const GETRULE: u16 = 7;
    pub(in super::super) const DELRULE: u16 = 8;
    pub(in super::super) const NEWSET: u16 = 9;
    pub(in super::super) const GETSET: u16 = 10;
    pub(in super::super) const DELSET: u16 = 11;
    pub(in super::super) const NEWSETELEM: u16 = 12;
    pub(in super::super) const GETSETELEM: u16 = 13;
    pub(in super::super) const DELSETELEM: u16 = 14;
    pub(in super::super) const NEWGEN: u16 = 15;
    pub(in super::super) const GETGEN: u16 = 16;
    pub(in super::super) const TRACE: u16 = 17;
}

pub(super) mod trace {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const RULE_HANDLE: u16 = 3;
    pub(in super::super) const TYPE: u16 = 4;
    pub(in super::super) const VERDICT: u16 = 5;
    pub(in super::super) const ID: u16 = 6;
    pub(in super::super) const NETWORK_HEADER: u16 = 8;
    pub(in super::super) const POLICY: u16 = 16;
}

pub(super) mod trace_type {
    pub(in super::super) const POLICY: u32 = 1;
    pub(in super::super) const RETURN: u32 = 2;
    pub(in super::super) const RULE: u32 = 3;
}

pub(super) mod list {
    pub(in super::super) const ELEM: u16 = 1;
}

pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 2;
    pub(in super::super) const HANDLE: u16 = 4;
    pub(in super::super) const USERDATA: u16 = 6;
    /// Of the flags: the table belongs to the socket that made it.
    pub(in super::super) const OWNER: u32 = 2;
}

pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const USERDATA: u16 = 12;
}

pub(super) mod hook {
    pub(in super::super) const NUM: u16 = 1;
    pub(in super::super) const PRIORITY: u16 = 2;
}

pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const HANDLE: u16 = 3;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const POSITION: u16 = 6;
    pub(in super::super) const USERDATA: u16 = 7;
}

pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LEN: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LEN: u16 = 7;
    pub(in super::super) const DESC: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const TIMEOUT: u16 = 11;
    pub(in super::super) const GC_INTERVAL: u16 = 12;
    pub(in super::super) const USERDATA: u16 = 13;
    pub(in super::super) const COUNT: u16 = 20;
}

pub(super) mod set_flag {
    pub(in super::super) const ANONYMOUS: u32 = 0x1;
    pub(in super::super) const CONSTANT: u32 = 0x2;
    pub(in super::super) const INTERVAL: u32 = 0x4;
    pub(in super::super) const MAP: u32 = 0x8;
    pub(in super::super) const TIMEOUT: u32 = 0x10;
    pub(in super::super) const EVAL: u32 = 0x20;
    pub(in super::super) const CONCAT: u32 = 0x80;
}

pub(super) mod desc {
    pub(in super::super) const SIZE: u16 = 1;
    pub(in super::super) const CONCAT: u16 = 2;
    pub(in super::super) const FIELD_LEN: u16 = 1;
}

pub(super) mod elem {
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const TIMEOUT: u16 = 4;
    pub(in super::super) const EXPIRATION: u16 = 5;
    pub(in super::super) const USERDATA: u16 = 6;
    pub(in super::super) const KEY_END: u16 = 10;
}

pub(super) mod elem_flag {
    pub(in super::super) const INTERVAL_END: u32 = 1;
    pub(in super::super) const CATCHALL: u32 = 2;
}

pub(super) mod elem_list {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const SET: u16 = 2;
    pub(in super::super) const ELEMENTS: u16 = 3;
}

pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
}

pub(super) mod verdict {
    pub(in super::super) const CODE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
}

pub(super) mod expr {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
}

pub(super) mod generation {
    pub(in super::super) const ID: u16 = 1;
    pub(in super::super) const PROC_PID: u16 = 2;
    pub(in super::super) const PROC_NAME: u16 = 3;
}

pub(super) mod immediate {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
}

pub(super) mod bitwise {
    pub(in super::super) const SREG: u16 = 1;
    pub(in super::super) const DREG: u16 = 2;
    pub(in super::super) const LEN: u16 = 3;
    pub(in super::super) const MASK: u16 = 4;
    pub(in super::super) const XOR: u16 = 5;
    pub(in super::super) const OP: u16 = 6;
}

pub(super) mod byteorder {
    pub(in super::super) const SREG: u16 = 1;
    pub(in super::super) const DREG: u16 = 2;
    pub(in super::super) const OP: u16 = 3;
    pub(in super::super) const LEN: u16 = 4;
    pub(in super::super) const SIZE: u16 = 5;
}

pub(super) mod cmp {
    pub(in super::super) const SREG: u16 = 1;
    pub(in super::super) const OP: u16 = 2;
    pub(in super::super) const DATA: u16 = 3;
}

pub(super) mod range {
    pub(in super::super) const SREG: u16 = 1;
    pub(in super::super) const OP: u16 = 2;
    pub(in super::super) const FROM: u16 = 3;
    pub(in super::super) const TO: u16 = 4;
}

pub(super) mod lookup {
    pub(in super::super) const SET: u16 = 1;
    pub(in super::super) const SREG: u16 = 2;
    pub(in super::super) const DREG: u16 = 3;
    pub(in super::super) const FLAGS: u16 = 5;
}

pub(super) mod dynset {
    pub(in super::super) const SET_NAME: u16 = 1;
    pub(in super::super) const OP: u16 = 3;
    pub(in super::super) const SREG_KEY: u16 = 4;
    pub(in super::super) const SREG_DATA: u16 = 5;
    pub(in super::super) const TIMEOUT: u16 = 6;
    pub(in super::super) const EXPR: u16 = 7;
    pub(in super::super) const FLAGS: u16 = 9;
    pub(in super::super) const EXPRESSIONS: u16 = 10;
}

pub(super) mod payload {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const BASE: u16 = 2;
    pub(in super::super) const OFFSET: u16 = 3;
    pub(in super::super) const LEN: u16 = 4;
}

pub(super) mod meta {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const KEY: u16 = 2;
    pub(in super::super) const SREG: u16 = 3;
}

pub(super) mod hash {
    pub(in super::super) const SREG: u16 = 1;
    pub(in super::super) const DREG: u16 = 2;
    pub(in super::super) const LEN: u16 = 3;
    pub(in super::super) const MODULUS: u16 = 4;
    pub(in super::super) const SEED: u16 = 5;
    pub(in super::super) const OFFSET: u16 = 6;
    pub(in super::super) const TYPE: u16 = 7;
}

pub(super) mod numgen {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const MODULUS: u16 = 2;
    pub(in super::super) const TYPE: u16 = 3;
    pub(in super::super) const OFFSET: u16 = 4;
}

pub(super) mod nat {
    pub(in super::super) const TYPE: u16 = 1;
    pub(in super::super) const FAMILY: u16 = 2;
    pub(in super::super) const ADDR_MIN: u16 = 3;
    pub(in super::super) const ADDR_MAX: u16 = 4;
    pub(in super::super) const PROTO_MIN: u16 = 5;
    pub(in super::super) const PROTO_MAX: u16 = 6;
    pub(in super::super) const FLAGS: u16 = 7;
}

pub(super) mod nat_flag {
    pub(in super::super) const RANDOM: u32 = 0x4;
    pub(in super::super) const PERSISTENT: u32 = 0x8;
    pub(in super::super) const FULLY_RANDOM: u32 = 0x10;
}

pub(super) mod masq {
    pub(in super::super) const FLAGS: u16 = 1;
}

pub(super) mod redir {
    pub(in super::super) const PROTO_MIN: u16 = 1;
    pub(in super::super) const PROTO_MAX: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
}

pub(super) mod reject {
    pub(in super::super) const TYPE: u16 = 1;
    pub(in super::super) const ICMP_CODE: u16 = 2;
}

pub(super) mod fib {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const RESULT: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
}

pub(super) mod fib_flag {
    pub(in super::super) const SADDR: u32 = 1;
    pub(in super::super) const DADDR: u32 = 2;
    pub(in super::super) const MARK: u32 = 4;
    pub(in super::super) const IIF: u32 = 8;
    pub(in super::super) const OIF: u32 = 0x10;
    pub(in super::super) const PRESENT: u32 = 0x20;
}

pub(super) mod ct {
    pub(in super::super) const DREG: u16 = 1;
    pub(in super::super) const KEY: u16 = 2;
    pub(in super::super) const DIRECTION: u16 = 3;
    pub(in super::super) const SREG: u16 = 4;
}

pub(super) mod counter {
    pub(in super::super) const BYTES: u16 = 1;
    pub(in super::super) const PACKETS: u16 = 2;
}

pub(super) mod limit {
    pub(in super::super) const RATE: u16 = 1;
    pub(in super::super) const UNIT: u16 = 2;
    pub(in super::super) const BURST: u16 = 3;
    pub(in super::super) const TYPE: u16 = 4;
    pub(in super::super) const FLAGS: u16 = 5;
}

pub(super) mod socket {
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const DREG: u16 = 2;
}
