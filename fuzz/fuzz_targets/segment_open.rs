#![cfg_attr(fuzzing, no_main)]
rimstone_fuzz::entry!(segment_open);
