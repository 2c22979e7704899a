//! What a connection's earlier headers tell of the next: a producer's requests differ in a few digits and keys, and a header
//! that differs from one already read only inside its values has its fields at the same places. Comparing costs a tenth of
//! reading.

use super::scan::{self, Top};
use crate::Serialize;
use crate::frame::Frame;

/// Shapes a connection's headers may have at a time: numbers grow by a digit, topics change.
const SHAPES: usize = 4;
/// The longest header worth remembering, in bytes.
const HEADER_MAX: usize = 2 << 10;

/// The shapes of one connection's hot headers. Empty, it takes no memory of its own.
#[derive(Debug, Default)]
pub struct Shapes {
    known: Vec<Shape>,
    /// Which of them the next new one replaces.
    next: usize,
    /// Length of the last header of no known shape. A shape is learnt when its length comes twice in a row: one that never
    /// comes again costs more to learn than it saves.
    missed: usize,
}

/// A header that was read, and where another may differ from it.
#[derive(Debug)]
struct Shape {
    header: Box<[u8]>,
    /// All bits set where any plain character may stand, none where the header's own byte must.
    free: Box<[u8]>,
    top: Top,
}

impl Shapes {
    /// Reads the frame's header and leaves with the frame what stands where, as reading without this memory would.
    pub fn look(&mut self, frame: &mut Frame) {
        let header = frame.header();
        let like = self.find(header);
        if like.is_some() {
            frame.set_top(like);
            return;
        }
        let top = scan::top(header, frame.serialize());
        if frame.serialize() == Serialize::Json
            && let Some(top) = &top
            && top.has_shape()
            && header.len() <= HEADER_MAX
        {
            if self.missed == header.len() && std::str::from_utf8(header).is_ok() {
                self.learn(header, top);
            }
            self.missed = header.len();
        }
        frame.set_top(top);
    }

    fn find(&self, header: &[u8]) -> Option<Top> {
        let known = self.known.iter();
        known
            .filter(|shape| shape.header.len() == header.len())
            .find(|shape| shape.fits(header))
            .and_then(|shape| shape.top.of_like(header))
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    #[cfg(test)]
    pub(super) fn knows(&self, header: &[u8]) -> bool {
        self.find(header).is_some()
    }

    fn learn(&mut self, header: &[u8], top: &Top) {
        let shape = Shape::new(header, top);
        if self.known.len() < SHAPES {
            self.known.push(shape);
        } else {
            self.known[self.next] = shape;
            self.next = (self.next + 1) % SHAPES;
        }
    }
}

impl Shape {
    fn new(header: &[u8], top: &Top) -> Shape {
        let mut free = vec![0; header.len()];
        for (start, end) in top.values() {
            let mut at = start;
            while at < end {
                match header[at] {
                    // An escape stays what it is.
                    b'\\' if header[at + 1] == b'u' => at += 6,
                    b'\\' => at += 2,
                    0x20..0x80 => {
                        free[at] = 0xFF;
                        at += 1;
                    }
                    _ => at += 1,
                }
            }
        }
        Shape {
            header: header.into(),
            free: free.into(),
            top: top.clone(),
        }
    }

    /// Whether a header of the same length differs only where it may, and has plain characters there: neither quote,
    /// backslash, control character nor part of a longer one. Free of branches, so that it is compiled to wide instructions.
    fn fits(&self, header: &[u8]) -> bool {
        let mut wrong = 0;
        for ((&new, &old), &free) in header.iter().zip(&*self.header).zip(&*self.free) {
            let control = u8::from((new as i8) < 0x20);
            let mark = u8::from(new == b'"') | u8::from(new == b'\\');
            wrong |= (new ^ old) & !free | (control | mark).wrapping_neg() & free;
        }
        wrong == 0
    }
}
