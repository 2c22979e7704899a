//! Bits of a message's `sysFlag` and of a pull's; of a topic's and of a group's `sysFlag` too.
//! Source: `apache/rocketmq: common/.../sysflag/{MessageSysFlag,PullSysFlag,TopicSysFlag}.java`.
#![allow(missing_docs)]
pub const COMPRESSED: i32 = 0x1;
pub const MULTI_TAGS: i32 = 0x2;
pub const TRANSACTION_MASK: i32 = 0xC;
pub const TRANSACTION_NOT: i32 = 0x0;
pub const TRANSACTION_PREPARED: i32 = 0x4;
pub const TRANSACTION_COMMIT: i32 = 0x8;
pub const TRANSACTION_ROLLBACK: i32 = 0xC;
pub const BORN_HOST_V6: i32 = 0x10;
pub const STORE_HOST_V6: i32 = 0x20;
pub const NEED_UNWRAP: i32 = 0x40;
pub const INNER_BATCH: i32 = 0x80;
pub const COMPRESSION_TYPE_MASK: i32 = 0x700;
pub const COMPRESSION_LZ4: i32 = 0x100;
pub const COMPRESSION_ZSTD: i32 = 0x200;
pub const COMPRESSION_ZLIB: i32 = 0x300;
pub const PULL_COMMIT_OFFSET: i32 = 0x1;
pub const PULL_SUSPEND: i32 = 0x2;
pub const PULL_SUBSCRIPTION: i32 = 0x4;
pub const PULL_CLASS_FILTER: i32 = 0x8;
pub const PULL_LITE: i32 = 0x10;
pub const TOPIC_UNIT: i32 = 0x1;
pub const TOPIC_UNIT_SUB: i32 = 0x2;
