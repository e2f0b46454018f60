//! Owned tensors and the views that operators take: dtype + shape + device, contiguous.

use crate::device::{Buffer, Device};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// Owns zero-initialised memory of `shape × dtype` on one device.
#[derive(Debug)]
pub struct Tensor {
    buffer: Buffer,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    /// Allocates zeros for `what` (named if memory runs out).
    pub fn zeros(
        device: &Device,
        what: &str,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Self> {
        let shape = shape.into();
        let num_bytes = shape
            .num_elems()
            .checked_mul(dtype.size_bytes())
            .ok_or_else(|| Error::OutOfMemory { what: what.into(), bytes: usize::MAX })?;
        Ok(Self { buffer: device.alloc_zeroed(what, num_bytes)?, shape, dtype })
    }

    /// Allocates and fills from host values in row-major order; panics if the count differs.
    pub fn from_slice<T: Element>(
        device: &Device,
        what: &str,
        shape: impl Into<Shape>,
        values: &[T],
    ) -> Result<Self> {
        let mut tensor = Self::zeros(device, what, shape, T::DTYPE)?;
        tensor.view_mut().copy_from_host(values);
        Ok(tensor)
    }

    /// The shape it was allocated with.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Borrows the whole tensor.
    pub fn view(&self) -> View<'_> {
        let storage = match &self.buffer {
            Buffer::Host(bytes) => Storage::Host(bytes.as_slice()),
        };
        View { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Borrows the whole tensor for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        let storage = match &mut self.buffer {
            Buffer::Host(bytes) => StorageMut::Host(bytes.as_mut_slice()),
        };
        ViewMut { storage, shape: self.shape, dtype: self.dtype }
    }

    /// The first `rows` along the outermost dimension.
    pub fn rows(&self, rows: usize) -> View<'_> {
        self.view().slice_rows(0, rows)
    }

    /// The first `rows` along the outermost dimension, for writing.
    pub fn rows_mut(&mut self, rows: usize) -> ViewMut<'_> {
        self.view_mut().slice_rows(0, rows)
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        match &mut self.buffer {
            Buffer::Host(bytes) => bytes.clear(),
        }
    }
}

#[derive(Clone, Copy)]
enum Storage<'a> {
    Host(&'a [u8]),
}

enum StorageMut<'a> {
    Host(&'a mut [u8]),
}

/// A shared borrow of contiguous elements. Its bytes are exactly shape × dtype.
#[derive(Clone, Copy)]
pub struct View<'a> {
    storage: Storage<'a>,
    shape: Shape,
    dtype: DType,
}

/// The unique borrow of contiguous elements. Its bytes are exactly shape × dtype.
pub struct ViewMut<'a> {
    storage: StorageMut<'a>,
    shape: Shape,
    dtype: DType,
}

/// Byte range of `rows` outermost rows from `start`, and the shape they have.
fn row_range(
    shape: Shape,
    dtype: DType,
    start: usize,
    rows: usize,
) -> (std::ops::Range<usize>, Shape) {
    let dims = shape.dims();
    assert!(!dims.is_empty(), "a scalar has no rows");
    assert!(start + rows <= dims[0], "rows {start}+{rows} of a tensor of shape {shape}");
    let row_bytes = dims[1..].iter().product::<usize>() * dtype.size_bytes();
    let mut new_dims = dims.to_vec();
    new_dims[0] = rows;
    let new_shape = Shape::new(&new_dims).unwrap_or(shape);
    (start * row_bytes..(start + rows) * row_bytes, new_shape)
}

impl<'a> View<'a> {
    /// A view of host values.
    pub fn from_host<T: Element>(values: &'a [T], shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(values.len(), shape.num_elems(), "values for shape {shape}");
        Self { storage: Storage::Host(bytemuck::cast_slice(values)), shape, dtype: T::DTYPE }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows `start .. start + rows` of the outermost dimension; panics beyond the end.
    pub fn slice_rows(self, start: usize, rows: usize) -> Self {
        let (range, shape) = row_range(self.shape, self.dtype, start, rows);
        let storage = match self.storage {
            Storage::Host(bytes) => Storage::Host(&bytes[range]),
        };
        Self { storage, shape, dtype: self.dtype }
    }

    /// The same elements under another shape; panics if the count differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.num_elems(), self.shape.num_elems(), "{} as {shape}", self.shape);
        Self { shape, ..self }
    }

    /// The elements, when they are on the host; panics if `T` is not the dtype.
    pub fn host<T: Element>(self) -> &'a [T] {
        assert_eq!(T::DTYPE, self.dtype, "typed access");
        match self.storage {
            Storage::Host(bytes) => bytemuck::cast_slice(bytes),
        }
    }

    /// Copies the elements to the host as f64, from any float dtype (or i32).
    pub fn to_f64_vec(self) -> Vec<f64> {
        match self.dtype {
            DType::F64 => self.host::<f64>().to_vec(),
            DType::F32 => self.host::<f32>().iter().map(|&x| f64::from(x)).collect(),
            DType::BF16 => self.host::<half::bf16>().iter().map(|x| x.to_f64()).collect(),
            DType::F16 => self.host::<half::f16>().iter().map(|x| x.to_f64()).collect(),
            DType::I32 => self.host::<i32>().iter().map(|&x| f64::from(x)).collect(),
        }
    }
}

impl<'a> ViewMut<'a> {
    /// A view of host values, for writing.
    pub fn from_host<T: Element>(values: &'a mut [T], shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(values.len(), shape.num_elems(), "values for shape {shape}");
        let storage = StorageMut::Host(bytemuck::cast_slice_mut(values));
        Self { storage, shape, dtype: T::DTYPE }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Borrows again, so that the view can be passed on and used afterwards.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        let storage = match &mut self.storage {
            StorageMut::Host(bytes) => StorageMut::Host(bytes),
        };
        ViewMut { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Reads through the unique borrow.
    pub fn as_view(&self) -> View<'_> {
        let storage = match &self.storage {
            StorageMut::Host(bytes) => Storage::Host(bytes),
        };
        View { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Rows `start .. start + rows` of the outermost dimension; panics beyond the end.
    pub fn slice_rows(self, start: usize, rows: usize) -> Self {
        let (range, shape) = row_range(self.shape, self.dtype, start, rows);
        let storage = match self.storage {
            StorageMut::Host(bytes) => StorageMut::Host(&mut bytes[range]),
        };
        Self { storage, shape, dtype: self.dtype }
    }

    /// The same elements under another shape; panics if the count differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.num_elems(), self.shape.num_elems(), "{} as {shape}", self.shape);
        Self { shape, ..self }
    }

    /// The first `rows` of the outermost dimension, and the rest; panics beyond the end.
    pub fn split_rows(self, rows: usize) -> (Self, Self) {
        let total = self.shape.dims().first().copied().unwrap_or(0);
        let (front, front_shape) = row_range(self.shape, self.dtype, 0, rows);
        let (_, back_shape) = row_range(self.shape, self.dtype, rows, total - rows);
        let (front_storage, back_storage) = match self.storage {
            StorageMut::Host(bytes) => {
                let (a, b) = bytes.split_at_mut(front.end);
                (StorageMut::Host(a), StorageMut::Host(b))
            }
        };
        let dtype = self.dtype;
        (
            Self { storage: front_storage, shape: front_shape, dtype },
            Self { storage: back_storage, shape: back_shape, dtype },
        )
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        match &mut self.storage {
            StorageMut::Host(bytes) => bytes.fill(0),
        }
    }

    /// The elements, when they are on the host; panics if `T` is not the dtype.
    pub fn host<T: Element>(self) -> &'a mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "typed access");
        match self.storage {
            StorageMut::Host(bytes) => bytemuck::cast_slice_mut(bytes),
        }
    }

    /// Copies host values in; panics if count or dtype differ.
    pub fn copy_from_host<T: Element>(self, values: &[T]) {
        assert_eq!(values.len(), self.shape.num_elems(), "values for shape {}", self.shape);
        self.host::<T>().copy_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_reshape_address_the_same_elements() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut t = Tensor::from_slice(&Device::Cpu, "t", [4, 3], &values).unwrap();
        assert_eq!(t.view().slice_rows(1, 2).host::<f32>(), &values[3..9]);
        assert_eq!(t.rows(2).reshape([6]).host::<f32>(), &values[..6]);
        t.view_mut().slice_rows(3, 1).copy_from_host(&[7.0f32; 3]);
        assert_eq!(t.view().host::<f32>()[9..], [7.0; 3]);
        let (mut front, back) = t.view_mut().split_rows(1);
        front.clear();
        assert_eq!((front.shape().dims(), back.shape().dims()), (&[1, 3][..], &[3, 3][..]));
        assert_eq!(back.host::<f32>()[0], 3.0);
        assert_eq!(t.view().host::<f32>()[..4], [0.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "typed access")]
    fn the_wrong_type_is_refused() {
        let t = Tensor::zeros(&Device::Cpu, "t", [2], DType::F32).unwrap();
        let _ = t.view().host::<f64>();
    }
}
