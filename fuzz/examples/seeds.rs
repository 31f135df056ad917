//! Writes the inputs with names into `corpus/`.

fn main() -> std::io::Result<()> {
    rimstone_fuzz::seeds::write()
}
