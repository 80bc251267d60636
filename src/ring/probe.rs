//! What io_uring can do here, tried for real before any shard starts.
