//! Registers, configuration space and page responses of the DMA engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::dma_engine(data));
