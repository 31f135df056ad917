use std::io;

use super::VfsFile;

/// Bytes written at once.
const WRITE: usize = 1 << 20;

/// Bytes on their way to the end of a new file, in large pieces.
pub(crate) struct Output<'a> {
    file: &'a dyn VfsFile,
    offset: u64,
    buffer: Vec<u8>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(file: &'a dyn VfsFile, offset: u64) -> Output<'a> {
        let buffer = Vec::with_capacity(WRITE);
        Output {
            file,
            offset,
            buffer,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.buffer.len() < WRITE, "what was enough is written");
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is left and returns where the next byte goes.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        self.file.write_at(&self.buffer, self.offset)?;
        let before = self.offset;
        self.offset += self.buffer.len() as u64;
        debug_assert!(self.offset >= before, "a file only grows");
        self.buffer.clear();
        Ok(self.offset)
    }
}
