#![cfg_attr(fuzzing, no_main)]
rimstone_fuzz::entry!(kv_requests);
