// Lists of texts. No logic: buffers become views, vectors become arrays.
#include <nanobind/ndarray.h>

#include <memory>
#include <utility>
#include <vector>

#include "bind/module.h"
#include "text/lists.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qb {

namespace {

template <class T> nb::ndarray<nb::numpy, T> array(std::vector<T>&& values) {
    values.reserve(1);  // an array of nothing has a place too
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    const nb::capsule owner(owned.get(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    std::vector<T>* const kept = owned.release();
    return nb::ndarray<nb::numpy, T>(kept->data(), {kept->size()}, owner);
}

nb::tuple read(Listed (*reader)(std::string_view, size_t), const nb::bytes& json, size_t at) {
    const std::string_view text(json.c_str(), json.size());
    Listed list = [&] {
        nb::gil_scoped_release release;
        return reader(text, at);
    }();
    return nb::make_tuple(nb::bytes(list.texts.data(), list.texts.size()), array(std::move(list.sizes)),
                          array(std::move(list.ids)), list.end);
}

}  // namespace

void bind_text(nb::module_& m) {
    m.def(
        "read_tokens", [](const nb::bytes& json, size_t at) { return read(read_tokens, json, at); }, "json"_a, "at"_a,
        nb::sig(
            "def read_tokens(json: bytes, at: int) -> tuple[bytes, NDArray[numpy.int64], NDArray[numpy.int32], int]"),
        "The object of texts and their ids, each an int32, at a place in JSON: the texts end to end and 8 zeros, the "
        "bytes of each, the ids, and the place behind. ValueError for anything else.");
    m.def(
        "read_merges", [](const nb::bytes& json, size_t at) { return read(read_merges, json, at); }, "json"_a, "at"_a,
        nb::sig(
            "def read_merges(json: bytes, at: int) -> tuple[bytes, NDArray[numpy.int64], NDArray[numpy.int32], int]"),
        "The array of pairs of texts, or of texts with a blank in the middle, at a place in JSON: as of read_tokens, "
        "two texts for each, and no ids. ValueError for anything else.");
}

}  // namespace qb
