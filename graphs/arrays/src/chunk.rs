//! One chunk of an array: element type, shape, and a contiguous buffer in C order that is never copied to be shared.
//!
//! A chunk travels as its buffer and a few bytes of header; a received buffer is used where it lies. Knows nothing of
//! the array it belongs to or of how it was made.

use std::any::Any;

use bytemuck::Pod;
use bytes::Bytes;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rask_graphs::{Data, EncodeError, Encoded, Value};
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunking::{check_size, shape_text};
use crate::dtype::{DType, with_type};
use crate::scalar::Scalar;

/// The wire name of chunks.
pub const KIND: &str = "array";

/// A Rust type that elements are stored as. Booleans are stored as `u8`, so `bool` itself is not one.
pub trait Element: Pod + Send + Sync + PartialOrd {
    /// The element type that `Self` stores by itself.
    const DTYPE: DType;
}

macro_rules! element {
    ($($T:ty => $dtype:ident),*) => {
        $(impl Element for $T {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}
element!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64, f32 => F32, f64 => F64);

/// A chunk: immutable, shared by cloning.
#[derive(Clone)]
pub struct Chunk {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Header {
    dtype: DType,
    shape: Vec<usize>,
}

/// Number of elements of a shape, if that many bytes can exist. Axes count even beside one of size 0, so that no kernel
/// that leaves that one out meets a number it cannot count to.
fn n_elements(shape: &[usize], dtype: DType) -> Option<usize> {
    check_size(shape, dtype).ok()?;
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

impl Chunk {
    /// A chunk over `data`, which is copied only if it does not lie on a boundary of its elements.
    ///
    /// # Errors
    /// When the length is not that of the shape, or a boolean is neither 0 nor 1.
    pub fn from_bytes(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, String> {
        let n = n_elements(&shape, dtype).ok_or_else(|| format!("shape {} is too large", shape_text(&shape)))?;
        if data.len() != n * dtype.size() {
            return Err(format!("shape {} of {dtype} takes {} bytes, got {}", shape_text(&shape), n * dtype.size(), data.len()));
        }
        if dtype == DType::Bool && data.iter().any(|&byte| byte > 1) {
            return Err("a boolean that is neither 0 nor 1".to_owned());
        }
        let aligned = data.as_ptr().align_offset(dtype.size()) == 0;
        let data = if aligned { data } else { Buffer::copy_of(&data).freeze() };
        Ok(Self { dtype, shape, data })
    }

    /// A chunk over a filled buffer. The caller has made it of the right length.
    pub(crate) fn from_buffer(dtype: DType, shape: Vec<usize>, buffer: Buffer) -> Self {
        debug_assert_eq!(Some(buffer.bytes().len()), n_elements(&shape, dtype).map(|n| n * dtype.size()));
        Self { dtype, shape, data: buffer.freeze() }
    }

    /// A chunk of `elements` in C order. Its type is that of `T`.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape has.
    pub fn from_slice<T: Element>(shape: Vec<usize>, elements: &[T]) -> Result<Self, String> {
        Self::from_bytes(T::DTYPE, shape, Buffer::copy_of(bytemuck::cast_slice(elements)).freeze())
    }

    /// A chunk of truth values in C order.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape has.
    pub fn from_bools(shape: Vec<usize>, elements: &[bool]) -> Result<Self, String> {
        let bytes: Vec<u8> = elements.iter().map(|&element| u8::from(element)).collect();
        Self::from_bytes(DType::Bool, shape, Buffer::copy_of(&bytes).freeze())
    }

    /// A copy of an `ndarray` array, whatever its layout.
    pub fn from_ndarray<T: Element>(array: &ArrayViewD<'_, T>) -> Self {
        let mut buffer = Buffer::zeroed(array.len() * size_of::<T>());
        for (place, &element) in buffer.typed_mut::<T>().iter_mut().zip(array.iter()) {
            *place = element;
        }
        Self::from_buffer(T::DTYPE, array.shape().to_vec(), buffer)
    }

    /// A 0-d chunk.
    #[must_use]
    pub fn scalar(dtype: DType, value: Scalar) -> Self {
        Self::from_buffer(dtype, Vec::new(), Buffer::copy_of(&value.to_bytes(dtype)))
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements as they lie in memory.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// When that shape has more or fewer elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, String> {
        Self::from_bytes(self.dtype, shape, self.data.clone())
    }

    /// The elements, if they are stored as `T`; booleans are stored as `u8`.
    #[must_use]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        (T::DTYPE == self.dtype || (T::DTYPE == DType::U8 && self.dtype == DType::Bool)).then(|| self.typed())
    }

    /// The elements as `T`, which the caller has found to be the type that stores them.
    pub(crate) fn typed<T: Pod>(&self) -> &[T] {
        if self.data.is_empty() { &[] } else { bytemuck::cast_slice(&self.data) }
    }

    /// A view for `ndarray`, if elements are stored as `T`.
    #[must_use]
    pub fn view<T: Element>(&self) -> Option<ArrayViewD<'_, T>> {
        ArrayViewD::from_shape(IxDyn(&self.shape), self.as_slice::<T>()?).ok()
    }

    /// All elements as floating-point numbers, whatever the type, in C order.
    #[must_use]
    #[expect(clippy::unnecessary_cast, reason = "one of the types is f64 already")]
    #[expect(clippy::cast_precision_loss, reason = "converting to floating point rounds")]
    pub fn to_f64(&self) -> ArrayD<f64> {
        let elements: Vec<f64> = with_type!(self.dtype, T => self.typed::<T>().iter().map(|&element| element as f64).collect());
        ArrayD::from_shape_vec(IxDyn(&self.shape), elements).unwrap_or_else(|_| ArrayD::zeros(IxDyn(&[0])))
    }

    /// Element number `idx` in C order.
    #[must_use]
    pub fn element(&self, idx: usize) -> Option<Scalar> {
        let size = self.dtype.size();
        let bytes = self.data.get(idx * size..(idx + 1) * size)?;
        Some(match self.dtype {
            DType::Bool => Scalar::Bool(bytes[0] != 0),
            DType::F32 => Scalar::Float(f64::from(bytemuck::pod_read_unaligned::<f32>(bytes))),
            DType::F64 => Scalar::Float(bytemuck::pod_read_unaligned(bytes)),
            DType::I8 => Scalar::Int(bytemuck::pod_read_unaligned::<i8>(bytes).into()),
            DType::I16 => Scalar::Int(bytemuck::pod_read_unaligned::<i16>(bytes).into()),
            DType::I32 => Scalar::Int(bytemuck::pod_read_unaligned::<i32>(bytes).into()),
            DType::I64 => Scalar::Int(bytemuck::pod_read_unaligned::<i64>(bytes).into()),
            DType::U8 => Scalar::Int(bytes[0].into()),
            DType::U16 => Scalar::Int(bytemuck::pod_read_unaligned::<u16>(bytes).into()),
            DType::U32 => Scalar::Int(bytemuck::pod_read_unaligned::<u32>(bytes).into()),
            DType::U64 => Scalar::Int(bytemuck::pod_read_unaligned::<u64>(bytes).into()),
        })
    }
}

impl PartialEq for Chunk {
    /// The same type, shape and bytes: NaN equals itself, zeros of different sign differ.
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.data == other.data
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({}, {}, {self})", self.dtype, shape_text(&self.shape))
    }
}

impl Data for Chunk {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn nbytes(&self) -> u64 {
        (self.data.len() + size_of::<Self>()) as u64
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        let header = Header { dtype: self.dtype, shape: self.shape.clone() };
        let header = serde_json::to_vec(&header).map_err(|error| EncodeError(error.to_string()))?;
        Ok(Encoded { kind: KIND, header: Bytes::from(header), buffers: vec![self.data.clone()] })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Rebuild a chunk from its wire form, using the buffer where it lies.
pub(crate) fn decode(header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    let header: Header = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let [data] = <[Bytes; 1]>::try_from(buffers).map_err(|buffers| format!("one buffer expected, got {}", buffers.len()))?;
    Ok(Value::new(Chunk::from_bytes(header.dtype, header.shape, data)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_without_a_copy() {
        let chunk = Chunk::from_slice(vec![2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, f64::NAN]).unwrap();
        let encoded = chunk.encode().unwrap();
        assert_eq!(encoded.buffers[0].as_ptr(), chunk.bytes().as_ptr());
        assert_eq!(chunk.bytes().as_ptr().align_offset(64), 0);
        let back = decode(&encoded.header, encoded.buffers.clone()).unwrap();
        let back: &Chunk = back.downcast().unwrap();
        assert_eq!(back, &chunk);
        assert_eq!(back.bytes().as_ptr(), chunk.bytes().as_ptr());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let encoded = Chunk::from_slice(vec![2], &[1i64, 2]).unwrap().encode().unwrap();
        assert!(decode(&encoded.header, vec![encoded.buffers[0].slice(8..)]).is_err());
        assert!(decode(&encoded.header, vec![]).is_err());
        assert!(decode(b"{}", encoded.buffers.clone()).is_err());
        let huge = format!("{{\"dtype\":\"f64\",\"shape\":[{0},{0}]}}", usize::MAX / 2);
        assert!(decode(huge.as_bytes(), vec![Bytes::new()]).is_err());
        assert!(Chunk::from_bytes(DType::Bool, vec![1], Bytes::from_static(&[2])).is_err());
    }

    #[test]
    fn a_crooked_buffer_is_straightened() {
        let mut bytes = vec![0u8; 17];
        bytes[1..9].copy_from_slice(&7i64.to_ne_bytes());
        let bytes = Bytes::from(bytes);
        for start in 0..2 {
            let chunk = Chunk::from_bytes(DType::I64, vec![2], bytes.slice(start..start + 16)).unwrap();
            assert_eq!(chunk.as_slice::<i64>().unwrap().len(), 2);
        }
        let chunk = Chunk::from_bytes(DType::I64, vec![1], bytes.slice(1..9)).unwrap();
        assert_eq!(chunk.as_slice::<i64>().unwrap(), &[7]);
    }

    #[test]
    fn empty_and_scalar_chunks() {
        let empty = Chunk::from_slice::<f64>(vec![0, 3], &[]).unwrap();
        assert_eq!(empty.view::<f64>().unwrap().shape(), &[0, 3]);
        let scalar = Chunk::scalar(DType::F32, Scalar::Float(1.5));
        assert_eq!(scalar.as_slice::<f32>().unwrap(), &[1.5]);
        assert_eq!(scalar.element(0), Some(Scalar::Float(1.5)));
        assert_eq!(scalar.element(1), None);
    }
}
