//! Owned tensors and the views that operators take: dtype + shape + device, contiguous.

use crate::cuda::{DeviceOperand, DeviceOperandMut, DeviceSlice, DeviceSliceMut};
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
        tensor.view_mut().copy_from_host(values)?;
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
            Buffer::Device(bytes) => Storage::Device(bytes.slice()),
        };
        View { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Borrows the whole tensor for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        let storage = match &mut self.buffer {
            Buffer::Host(bytes) => StorageMut::Host(bytes.as_mut_slice()),
            Buffer::Device(bytes) => StorageMut::Device(bytes.slice_mut()),
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

    /// Sets every byte to zero. On a GPU this is queued, and fails if the device does.
    pub fn clear(&mut self) -> Result<()> {
        match &mut self.buffer {
            Buffer::Host(bytes) => bytes.clear(),
            Buffer::Device(bytes) => bytes.slice_mut().fill_bytes(0)?,
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Storage<'a> {
    Host(&'a [u8]),
    Device(DeviceSlice<'a>),
}

enum StorageMut<'a> {
    Host(&'a mut [u8]),
    Device(DeviceSliceMut<'a>),
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

    /// Whether the elements are in host memory.
    pub fn is_on_host(&self) -> bool {
        matches!(self.storage, Storage::Host(_))
    }

    /// Rows `start .. start + rows` of the outermost dimension; panics beyond the end.
    pub fn slice_rows(self, start: usize, rows: usize) -> Self {
        let (range, shape) = row_range(self.shape, self.dtype, start, rows);
        let storage = match self.storage {
            Storage::Host(bytes) => Storage::Host(&bytes[range]),
            Storage::Device(slice) => Storage::Device(slice.range(range)),
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
            Storage::Device(_) => panic!("a {} tensor on the GPU, read as host memory", self.shape),
        }
    }

    /// Copies the elements to the host; panics if `T` is not the dtype. On a GPU this waits for all
    /// queued work, and fails if that did.
    pub fn to_vec<T: Element>(self) -> Result<Vec<T>> {
        let Storage::Device(slice) = self.storage else { return Ok(self.host::<T>().to_vec()) };
        assert_eq!(T::DTYPE, self.dtype, "typed access");
        let mut values = vec![T::zeroed(); self.shape.num_elems()];
        slice.download(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Copies the elements to the host as f64, from any dtype; as [`Self::to_vec`].
    pub fn to_f64_vec(self) -> Result<Vec<f64>> {
        Ok(match self.dtype {
            DType::F64 => self.to_vec::<f64>()?,
            DType::F32 => self.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
            DType::BF16 => self.to_vec::<half::bf16>()?.into_iter().map(f64::from).collect(),
            DType::F16 => self.to_vec::<half::f16>()?.into_iter().map(f64::from).collect(),
            DType::I32 => self.to_vec::<i32>()?.into_iter().map(f64::from).collect(),
            DType::U8 => self.to_vec::<u8>()?.into_iter().map(f64::from).collect(),
        })
    }
}

impl DeviceOperand for View<'_> {
    fn device_slice(&self) -> Option<DeviceSlice<'_>> {
        match self.storage {
            Storage::Host(_) => None,
            Storage::Device(slice) => Some(slice),
        }
    }
    fn operand_shape(&self) -> Option<Shape> {
        Some(self.shape)
    }
}

impl DeviceOperand for ViewMut<'_> {
    fn device_slice(&self) -> Option<DeviceSlice<'_>> {
        match &self.storage {
            StorageMut::Host(_) => None,
            StorageMut::Device(slice) => Some(slice.as_slice()),
        }
    }
    fn operand_shape(&self) -> Option<Shape> {
        Some(self.shape)
    }
}

impl DeviceOperandMut for ViewMut<'_> {
    fn device_slice_mut(&mut self) -> Option<DeviceSliceMut<'_>> {
        match &mut self.storage {
            StorageMut::Host(_) => None,
            StorageMut::Device(slice) => Some(slice.reborrow()),
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

    /// Whether the elements are in host memory.
    pub fn is_on_host(&self) -> bool {
        matches!(self.storage, StorageMut::Host(_))
    }

    /// Borrows again, so that the view can be passed on and used afterwards.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        let storage = match &mut self.storage {
            StorageMut::Host(bytes) => StorageMut::Host(bytes),
            StorageMut::Device(slice) => StorageMut::Device(slice.reborrow()),
        };
        ViewMut { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Reads through the unique borrow.
    pub fn as_view(&self) -> View<'_> {
        let storage = match &self.storage {
            StorageMut::Host(bytes) => Storage::Host(bytes),
            StorageMut::Device(slice) => Storage::Device(slice.as_slice()),
        };
        View { storage, shape: self.shape, dtype: self.dtype }
    }

    /// Rows `start .. start + rows` of the outermost dimension; panics beyond the end.
    pub fn slice_rows(self, start: usize, rows: usize) -> Self {
        let (range, shape) = row_range(self.shape, self.dtype, start, rows);
        let storage = match self.storage {
            StorageMut::Host(bytes) => StorageMut::Host(&mut bytes[range]),
            StorageMut::Device(slice) => StorageMut::Device(slice.range(range)),
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
            StorageMut::Device(slice) => {
                let (a, b) = slice.split_at(front.end);
                (StorageMut::Device(a), StorageMut::Device(b))
            }
        };
        let dtype = self.dtype;
        (
            Self { storage: front_storage, shape: front_shape, dtype },
            Self { storage: back_storage, shape: back_shape, dtype },
        )
    }

    /// Sets every byte to zero. On a GPU this is queued, and fails if the device does.
    pub fn clear(&mut self) -> Result<()> {
        self.fill_bytes(0)
    }

    /// Sets every byte to `value`: 0xff makes a NaN of every float.
    pub fn fill_bytes(&mut self, value: u8) -> Result<()> {
        match &mut self.storage {
            StorageMut::Host(bytes) => bytes.fill(value),
            StorageMut::Device(slice) => slice.fill_bytes(value)?,
        }
        Ok(())
    }

    /// The elements, when they are on the host; panics if `T` is not the dtype.
    pub fn host<T: Element>(self) -> &'a mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "typed access");
        match self.storage {
            StorageMut::Host(bytes) => bytemuck::cast_slice_mut(bytes),
            StorageMut::Device(_) => panic!("a {} tensor on the GPU, as host memory", self.shape),
        }
    }

    /// Copies host values in; panics if count or dtype differ. On a GPU the copy is queued (the
    /// values may be dropped at once), and fails if the device does.
    pub fn copy_from_host<T: Element>(self, values: &[T]) -> Result<()> {
        let source = View::from_host(values, self.shape);
        self.copy_from(&source)
    }

    /// Copies the elements of `source`, which may be on another device; panics if count or dtype
    /// differ.
    pub fn copy_from(self, source: &View<'_>) -> Result<()> {
        assert_eq!(source.dtype, self.dtype, "typed access");
        let (to, from) = (self.shape, source.shape);
        assert_eq!(to.num_elems(), from.num_elems(), "values of shape {from} for shape {to}");
        match (self.storage, source.storage) {
            (StorageMut::Host(to), Storage::Host(from)) => to.copy_from_slice(from),
            (StorageMut::Host(to), Storage::Device(from)) => from.download(to)?,
            (StorageMut::Device(to), Storage::Host(from)) => to.upload(from)?,
            (StorageMut::Device(to), Storage::Device(from)) => to.copy_from(from)?,
        }
        Ok(())
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
        t.view_mut().slice_rows(3, 1).copy_from_host(&[7.0f32; 3]).unwrap();
        assert_eq!(t.view().host::<f32>()[9..], [7.0; 3]);
        let (mut front, back) = t.view_mut().split_rows(1);
        front.clear().unwrap();
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
