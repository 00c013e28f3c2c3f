//! Channels-last images in memory, with the zeros that a convolution pads them with.

/// A channels-last image inside a border of zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Width of the border, on each side.
    pub padding: usize,
}

impl Image {
    /// Elements without the border.
    pub fn inner_len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Elements of a row without the border.
    pub fn row_len(self) -> usize {
        self.width * self.channels
    }

    /// Elements of a row.
    pub fn row_stride(self) -> usize {
        (self.width + 2 * self.padding) * self.channels
    }

    /// Elements.
    pub fn len(self) -> usize {
        (self.height + 2 * self.padding) * self.row_stride()
    }

    /// Height and width of the output of a convolution of kernel side `size`.
    pub fn convolved(self, size: usize, stride: usize) -> [usize; 2] {
        [self.height, self.width].map(|side| (side + 2 * self.padding - size) / stride + 1)
    }

    /// The offset of the first element that the convolution reads for each of its outputs.
    pub fn positions(self, size: usize, stride: usize) -> Vec<usize> {
        let [rows, columns] = self.convolved(size, stride);
        let row = |y: usize| (0..columns).map(move |x| (y * self.row_stride() + x * self.channels) * stride);
        (0..rows).flat_map(row).collect()
    }

    /// The rows inside the border of an image; of several without a border.
    pub fn rows<T>(self, image: &[T]) -> impl Iterator<Item = &[T]> {
        let inside = image.len() / self.row_stride() - 2 * self.padding;
        let (start, len) = (self.padding * self.channels, self.row_len());
        let rows = image.chunks_exact(self.row_stride()).skip(self.padding).take(inside);
        rows.map(move |row| &row[start..start + len])
    }

    /// The same, to be written.
    pub fn rows_mut<T>(self, image: &mut [T]) -> impl Iterator<Item = &mut [T]> {
        let inside = image.len() / self.row_stride() - 2 * self.padding;
        let (start, len) = (self.padding * self.channels, self.row_len());
        let rows = image.chunks_exact_mut(self.row_stride()).skip(self.padding).take(inside);
        rows.map(move |row| &mut row[start..start + len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_exclude_the_border() {
        let image = Image { height: 2, width: 3, channels: 2, padding: 1 };
        let mut elements: Vec<usize> = (0..image.len()).collect();
        let rows = [(12..18).collect::<Vec<_>>(), (22..28).collect()];
        assert_eq!((image.len(), image.inner_len()), (40, 12));
        assert!(image.rows(&elements).eq(&rows));
        assert!(image.rows_mut(&mut elements).eq(&rows));
        let image = Image { padding: 0, ..image };
        assert!(image.rows(&elements[..24]).flatten().copied().eq(0..24), "two images");
    }
}
