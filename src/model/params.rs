//! One flat buffer with a layout: weights, gradients and optimizer moments all have this form.

use super::layout::{ParamLayout, Span};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::Allocate;
use crate::tensor::{Tensor, View, ViewMut};
use std::sync::Arc;

/// Owns one value per parameter element, all of one type, addressed by [`Span`].
#[derive(Debug)]
pub struct Params<T = Tensor> {
    flat: T,
    layout: Arc<ParamLayout>,
}

impl<T> Params<T> {
    /// [`Params::zeros`] from anywhere.
    pub fn build(
        memory: &mut impl Allocate<Tensor = T>,
        what: &str,
        layout: &Arc<ParamLayout>,
        dtype: DType,
    ) -> Result<Self> {
        let flat = memory.zeros(what, [layout.num_elems()].into(), dtype)?;
        Ok(Self { flat, layout: Arc::clone(layout) })
    }
}

impl Params {
    /// Allocates zeros for `what` (named if memory runs out).
    pub fn zeros(
        mut device: &Device,
        what: &str,
        layout: &Arc<ParamLayout>,
        dtype: DType,
    ) -> Result<Self> {
        Self::build(&mut device, what, layout, dtype)
    }

    /// Where each parameter lies.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.layout
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.flat.dtype()
    }

    /// The elements of `span` in its shape; panics if it reaches beyond the buffer.
    pub fn view(&self, span: &Span) -> View<'_> {
        self.flat().slice_rows(span.offset, span.shape.num_elems()).reshape(span.shape)
    }

    /// The elements of `span` in its shape, for writing; panics if it reaches beyond the buffer.
    pub fn view_mut(&mut self, span: &Span) -> ViewMut<'_> {
        self.flat_mut().slice_rows(span.offset, span.shape.num_elems()).reshape(span.shape)
    }

    /// Two parameters for writing; panics unless `first` ends before `second` starts.
    pub fn view_mut_pair(&mut self, first: &Span, second: &Span) -> (ViewMut<'_>, ViewMut<'_>) {
        let (front, back) = self.flat_mut().split_rows(second.offset);
        let first_view = front.slice_rows(first.offset, first.shape.num_elems());
        let second_view = back.slice_rows(0, second.shape.num_elems());
        (first_view.reshape(first.shape), second_view.reshape(second.shape))
    }

    /// Every element: shape (num_elems).
    pub fn flat(&self) -> View<'_> {
        self.flat.view()
    }

    /// Every element, for writing.
    pub fn flat_mut(&mut self) -> ViewMut<'_> {
        self.flat.view_mut()
    }

    /// Sets every element to zero.
    pub fn clear(&mut self) -> Result<()> {
        self.flat.clear()
    }
}
